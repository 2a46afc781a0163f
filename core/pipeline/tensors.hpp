// What a caller hands to a cache: keys, values and queries in host memory of its own, read during the call alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/dtype.hpp"
#include "core/pipeline/layer_shape.hpp"

namespace kvlab {

// Rows of one head's keys or values: row t at base + t * row_step bytes, its channels side by side.
struct TokenRows {
  const std::byte* base = nullptr;
  std::int64_t row_step = 0;
  Dtype dtype = Dtype::f32;

  [[nodiscard]] TokenRows from(std::uint64_t token) const {
    return {base + static_cast<std::int64_t>(token) * row_step, row_step, dtype};
  }
  // Whether each row of so many channels begins where the one before ends.
  [[nodiscard]] bool side_by_side(std::uint64_t channels) const {
    return row_step == static_cast<std::int64_t>(channels * size_of(dtype));
  }
};

// The first `count` rows, widened and side by side.
void to_f32(const TokenRows& rows, std::uint64_t count, std::uint64_t channels, float* out);
bool all_finite(const TokenRows& rows, std::uint64_t count, std::uint64_t channels);

// K or V, [sequence, kv_head, token, channel], read only, aligned to the dtype. Strides in elements, in any order of
// size, but no two rows overlap; channels are contiguous.
struct KvTensor {
  const void* base = nullptr;
  Dtype dtype = Dtype::f32;
  std::uint64_t sequences = 0;
  std::uint32_t kv_heads = 0;
  std::uint64_t tokens = 0;
  std::uint32_t channels = 0;
  std::int64_t sequence_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t token_stride = 0;

  // Contiguous, with the dtype, KV heads and head_dim that a layer has in this role (KVLAB_ROLE_KEYS, _VALUES).
  static KvTensor contiguous(const LayerShape& shape, std::uint32_t role, std::uint64_t sequences, std::uint64_t tokens,
                             const void* base);
  [[nodiscard]] TokenRows head(std::uint64_t sequence, std::uint32_t kv_head) const;
  // Only these tokens of each head.
  [[nodiscard]] KvTensor slice(std::uint64_t first, std::uint64_t count) const;
};

// Queries, f32 after RoPE, unscaled: [sequence, query_head, query, channel], contiguous.
struct QueryTensor {
  const float* base = nullptr;
  std::uint64_t sequences = 0;
  std::uint32_t query_heads = 0;
  std::uint64_t count = 0;  // queries per query head
  std::uint32_t channels = 0;
  // [sequence, query], or [query], the same in each sequence. Ascending in each; equal ones are allowed.
  std::span<const std::uint32_t> positions;

  // Of a layer's query heads and head_dim.
  static QueryTensor contiguous(const LayerShape& shape, std::uint64_t sequences, std::uint64_t count,
                                const float* base, std::span<const std::uint32_t> positions) {
    return {base, sequences, shape.query_heads, count, shape.head_dim_keys, positions};
  }
  [[nodiscard]] std::span<const std::uint32_t> positions_of(std::uint64_t sequence) const {
    return positions.size() == count ? positions : positions.subspan(sequence * count, count);
  }
};

struct Prefill {
  KvTensor keys;
  KvTensor values;       // of as many sequences and tokens
  QueryTensor observed;  // what selectors may see; never those that they are judged on. Needed where one reads queries

  [[nodiscard]] std::uint64_t tokens() const { return keys.tokens; }
};

}  // namespace kvlab
