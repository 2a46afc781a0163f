// Attention of one KV head's queries over what the cache holds of it.
#pragma once

#include <span>

#include "core/cache/cache.hpp"

namespace kvlab {

// Queries of one KV head's group, f32 [count, head_dim_keys]; row i is at position positions[i % positions.size()].
struct QueryRows {
  const float* base;
  std::uint64_t count;
  std::span<const std::uint32_t> positions;
};

// out: [count, head_dim_values]
void attend_head(const LayerCache& cache, const Head& head, std::uint32_t kv_head, const QueryRows& queries, float* out,
                 Workspace& workspace);

}  // namespace kvlab
