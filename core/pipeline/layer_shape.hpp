// The shape of one layer of a model, for a batch of sequences.
#pragma once

#include <kvlab/abi.h>

#include <cstdint>
#include <string>
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
  // Channels of a row of this role (KVLAB_ROLE_KEYS, _VALUES).
  [[nodiscard]] std::uint32_t head_dim(std::uint32_t role) const {
    return role == KVLAB_ROLE_KEYS ? head_dim_keys : head_dim_values;
  }
  [[nodiscard]] std::uint64_t heads() const { return batch * kv_heads; }  // (sequence, KV head) pairs
  // Throws InputError: kv_heads 1 .. 65,536, head_dim 1 .. 512, batch 1 .. 2^20, query_heads a multiple; enumerators
  // that there are, finite numbers, at most head_dim_keys / 2 frequencies.
  void check() const;
  // As the ABI tells it to a method of this role (KVLAB_ROLE_*). inv_freq points here.
  [[nodiscard]] kvlab_layer describe(std::uint32_t role) const;

 private:
  void check_rope() const;
};

// "layer 3: ", how sentences about a layer begin.
std::string of_layer(std::uint32_t layer);

}  // namespace kvlab
