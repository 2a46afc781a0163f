// Calling selectors: one head's tokens, as the ABI describes them.
#pragma once

#include <span>

#include "core/cache/cache.hpp"
#include "core/cache/encoder.hpp"

namespace kvlab {

struct SelectorCall {
  const LayerShape& shape;
  Dtype dtype;  // of the rows
  std::uint32_t sequence;
  std::uint32_t kv_head;
  std::span<const std::uint32_t> positions;  // ascending
  TokenRows keys;                            // rows of those tokens; null base where the selector reads none
  TokenRows values;
  kvlab_queries observed;
};

// Scores of the tokens, in the workspace's floats until they are used otherwise.
std::span<float> call_selector(const SelectorInstance& selector, const SelectorCall& call, Workspace& workspace);

}  // namespace kvlab
