// What calls are about, as spans: the workload's tokens, an encoded block, scratch.
#pragma once

#include <kvlab/abi.h>
#include <kvlab/half.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace kvlab {

// The layer that an instance works for: see kvlab_layer. A copy of the plugin's own.
struct Layer : kvlab_layer {
  std::vector<double> frequencies;  // inv_freq points here

  Layer() : kvlab_layer{} {}
  explicit Layer(const kvlab_layer& from) : kvlab_layer(from) {
    if (from.inv_freq != nullptr) frequencies.assign(from.inv_freq, from.inv_freq + from.rope_dim / 2);
    inv_freq = frequencies.data();
  }
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;
  Layer(Layer&&) noexcept = default;  // a vector keeps its data when moved
  Layer& operator=(Layer&&) noexcept = default;
  ~Layer() = default;

  // Channels of the tensor that an instance of this role codes.
  [[nodiscard]] std::uint64_t head_dim() const { return role == KVLAB_ROLE_VALUES ? head_dim_values : head_dim_keys; }
};

// Tokens of one KV head, read only, in the workload's element type.
struct TokenView : kvlab_view {
  // The token's channels as f32 into `row`, which holds that many.
  void read(std::uint64_t token, std::span<float> row) const {
    const auto offset = static_cast<std::int64_t>(token) * token_stride;
    if (dtype == KVLAB_F32) {
      std::memcpy(row.data(), static_cast<const float*>(base) + offset, channels * sizeof(float));
      return;
    }
    const std::uint16_t* bits = static_cast<const std::uint16_t*>(base) + offset;
    if (dtype == KVLAB_BF16) {
      for (std::uint64_t c = 0; c < channels; ++c) row[c] = bf16_to_f32(bits[c]);
    } else {
      for (std::uint64_t c = 0; c < channels; ++c) row[c] = f16_to_f32(bits[c]);
    }
  }
  // All tokens as f32, [tokens, channels] contiguous.
  void read_all(std::span<float> rows) const {
    for (std::uint64_t t = 0; t < tokens; ++t) read(t, rows.subspan(t * channels, channels));
  }
};

// An encoded block: see kvlab_block.
struct Block : kvlab_block {
  [[nodiscard]] std::span<const std::uint8_t> data() const { return {bytes, size}; }
  [[nodiscard]] std::uint32_t position(std::uint64_t token) const {
    return positions != nullptr ? positions[token] : first_position + static_cast<std::uint32_t>(token);
  }
};

// f32 rows, row t at base + t * stride.
struct Rows {
  float* base;
  std::uint64_t stride;
  [[nodiscard]] float* operator[](std::uint64_t row) const { return base + row * stride; }
};

// The host's scratch of one call, dealt out in 64-byte steps. Ask for as much in the matching `*_scratch`:
// Scratch::size<float>(n) for each take<float>(n).
class Scratch {
 public:
  explicit Scratch(void* base) : next_(static_cast<std::byte*>(base)) {}

  template <class T>
  std::span<T> take(std::uint64_t count) {
    auto* start = reinterpret_cast<T*>(next_);
    next_ += size<T>(count);
    return {start, count};
  }
  template <class T>
  static constexpr std::uint64_t size(std::uint64_t count) {
    return (count * sizeof(T) + 63) / 64 * 64;
  }

 private:
  std::byte* next_;
};

}  // namespace kvlab
