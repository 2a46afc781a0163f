// Attention of one KV head's queries over what the cache holds of it, in parts that are merged (flash-decoding).
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

// Floats that a part takes.
std::uint64_t part_size(const LayerCache& cache, std::uint64_t queries);

// Over the kept tokens [first, end), cut where tiles of values begin: those whose first token is in the range.
void attend_part(const LayerCache& cache, const Head& head, std::uint32_t kv_head, const QueryRows& queries,
                 std::uint64_t first, std::uint64_t end, float* part, Workspace& workspace);

// `parts` of part_size floats one after another, at least one; they are overwritten. out: [count, head_dim_values],
// 0 where nothing was attended to.
void merge_parts(const LayerCache& cache, std::uint32_t kv_head, const QueryRows& queries, float* parts,
                 std::uint64_t count, float* out, Workspace& workspace);

}  // namespace kvlab
