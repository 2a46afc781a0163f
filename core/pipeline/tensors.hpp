// What a caller hands to a cache: keys, values and queries in memory of its own, read during the call alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/dtype.hpp"

namespace kvlab {

// K or V, [batch, kv_head, token, channel], read only, aligned to the dtype. Strides in elements, in any order of size,
// but no two rows overlap; channels are contiguous.
struct KvTensor {
  const void* base = nullptr;
  std::int64_t sequence_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t token_stride = 0;

  // The first byte of a head's tokens.
  [[nodiscard]] const std::byte* head(std::uint64_t sequence, std::uint32_t kv_head, Dtype dtype) const {
    const auto offset = static_cast<std::int64_t>(sequence) * sequence_stride + kv_head * head_stride;
    return static_cast<const std::byte*>(base) + offset * static_cast<std::int64_t>(size_of(dtype));
  }
};

// Queries, f32 after RoPE, unscaled: [batch, query_head, query, channel], contiguous.
struct QueryTensor {
  const float* base = nullptr;
  std::span<const std::uint32_t> positions;  // [query], ascending, equal ones allowed

  [[nodiscard]] std::uint64_t count() const { return positions.size(); }
};

struct Prefill {
  std::uint64_t tokens = 0;
  KvTensor keys;
  KvTensor values;
  QueryTensor observed;  // what selectors may see; never those that they are judged on. Needed where one reads queries
};

}  // namespace kvlab
