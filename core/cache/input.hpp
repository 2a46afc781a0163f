// What a caller hands to a cache, checked before it is used. All throw InputError with a sentence that says what is
// wrong and what is valid.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/pipeline/layer_shape.hpp"
#include "core/pipeline/tensors.hpp"

namespace kvlab {

// Keys or values of [sequences, kv_heads, tokens, channels]: there is a base, aligned to the dtype, and strides with
// which no two rows overlap. Their numbers are not read.
void check_tensor(const LayerShape& shape, std::uint32_t role, const KvTensor& tensor, std::uint64_t sequences,
                  std::uint64_t tokens);

// Queries of `sequences` sequences, positions [sequence, query]: there are some, they are finite, and positions ascend
// in each sequence and stay below 2^31. `what`: "queries", "observed queries".
void check_queries(const LayerShape& shape, const char* what, const float* queries,
                   std::span<const std::uint32_t> positions, std::uint64_t sequences);

}  // namespace kvlab
