// One layer of a model for a batch of sequences, as the cache is given it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/dtype.hpp"

namespace kvlab {

enum class RopeStyle : std::uint32_t {
  none = KVLAB_ROPE_NONE,
  half = KVLAB_ROPE_HALF,
  interleaved = KVLAB_ROPE_INTERLEAVED
};

struct LayerShape {
  std::uint32_t layer = 0;  // the model's own number
  std::uint64_t batch = 1;
  std::uint32_t kv_heads = 1;
  std::uint32_t query_heads = 1;  // a multiple of kv_heads
  std::uint32_t head_dim_keys = 1;
  std::uint32_t head_dim_values = 1;
  Dtype dtype = Dtype::bf16;
  double attention_scale = 1;
  std::uint64_t window = 0;  // the layer attends to that many tokens only; 0: to all
  RopeStyle rope_style = RopeStyle::none;
  std::vector<double> inv_freq;  // [rope_dim / 2]
  std::uint64_t seed = 0;

  [[nodiscard]] std::uint32_t group() const { return query_heads / kv_heads; }
  [[nodiscard]] std::uint64_t heads() const { return batch * kv_heads; }  // (sequence, KV head) pairs
  // Throws InputError: kv_heads 1 .. 65,536, head_dim 1 .. 512, batch 1 .. 2^20, query_heads a multiple; enumerators
  // that there are, finite numbers, at most head_dim_keys / 2 frequencies.
  void check() const;
  // As the ABI tells it to a method of this role (KVLAB_ROLE_*). inv_freq points here.
  [[nodiscard]] kvlab_layer describe(std::uint32_t role) const;

 private:
  void check_rope() const;
};

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
