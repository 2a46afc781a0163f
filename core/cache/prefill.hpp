// A prefill: selection, then what is kept into raw chunks and blocks.
#pragma once

#include <vector>

#include "core/backend/backend.hpp"
#include "core/cache/layer.hpp"
#include "core/pipeline/tensors.hpp"

namespace kvlab {

// The heads of the input's sequences, [sequence, kv_head]. `rung`: that they are on. Throws InputError for a number
// that is not finite, BudgetError, MethodError; nothing is left in the arena then.
std::vector<Head> prefill_heads(const Layer& layer, const Prefill& input, std::uint64_t sequences, std::uint8_t rung,
                                Arena& arena, Backend& backend);

}  // namespace kvlab
