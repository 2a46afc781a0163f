// The parameters of quantize, the arithmetic of one group, and where everything lies in a block.
//
//   per_token, n tokens of c channels, G = ceil(c / group) groups per token
//     codes  [n] rows of ceil(c * bits / 8) bytes | scales [n][G] | zeros [n][G] (asymmetric)
//   per_channel, one group per channel
//     codes  [c] rows of ceil(n * bits / 8) bytes | scales [c]    | zeros [c]    (asymmetric)
//
// Scales and zeros are 2 bytes (f16, bf16) or 4 (f32) each and follow the codes without padding.
#pragma once

#include <kvlab/half.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "packing.hpp"

namespace quantize {

enum class Scales { per_token, per_channel };
enum class ScaleDtype { f16, bf16, f32 };

// Rounds to nearest even; exact for |x| < 2^22. Adding 1.5 * 2^23 leaves no bits below the unit.
inline float round_even(float x) {
  constexpr float magic = 12582912.0F;
  return (x + magic) - magic;
}

// Scales and zeros as stored.
struct ScaleFormat {
  ScaleDtype dtype;

  [[nodiscard]] std::uint64_t size() const { return dtype == ScaleDtype::f32 ? 4 : 2; }
  // As it reads back: rounded, at most the largest finite value.
  [[nodiscard]] float round(float x) const {
    switch (dtype) {
      case ScaleDtype::f16:
        return kvlab::f16_to_f32(kvlab::f32_to_f16_saturated(x));
      case ScaleDtype::bf16:
        return kvlab::bf16_to_f32(kvlab::f32_to_bf16_saturated(x));
      case ScaleDtype::f32:
        break;
    }
    constexpr float largest = 0x1.FFFFFEp127F;
    return std::clamp(x, -largest, largest);
  }
  void store(std::uint8_t* base, std::uint64_t index, float x) const {
    if (dtype == ScaleDtype::f32) {
      std::memcpy(base + index * 4, &x, 4);
      return;
    }
    const std::uint16_t bits = dtype == ScaleDtype::f16 ? kvlab::f32_to_f16(x) : kvlab::f32_to_bf16(x);
    std::memcpy(base + index * 2, &bits, 2);
  }
  [[nodiscard]] float load(const std::uint8_t* base, std::uint64_t index) const {
    if (dtype == ScaleDtype::f32) {
      float x = 0;
      std::memcpy(&x, base + index * 4, 4);
      return x;
    }
    std::uint16_t bits = 0;
    std::memcpy(&bits, base + index * 2, 2);
    return dtype == ScaleDtype::f16 ? kvlab::f16_to_f32(bits) : kvlab::bf16_to_f32(bits);
  }
};

// How one group becomes codes: c = clamp(rne((x - z) / s), low, high), x̂ = c * s + z; z = 0 when symmetric.
struct Group {
  float scale;
  float zero;
  float low;
  float high;

  [[nodiscard]] std::int32_t code(float x) const {
    if (scale == 0) return 0;
    const float quotient = (x - zero) / scale;
    const float within = quotient < high ? std::max(quotient, low) : high;  // a number whatever x is
    return static_cast<std::int32_t>(round_even(within));
  }
  // Whether the largest code, and so every one, decodes to a finite number: not where a group's range, or its scale
  // rounded up, is beyond f32.
  [[nodiscard]] bool decodes_finite() const {
    return std::isfinite(high * scale) && std::isfinite(high * scale + zero);
  }
};

// s and z of x[0], x[stride], ... ; both rounded before a code is computed with them.
inline Group fit(const float* x, std::uint64_t count, std::uint64_t stride, unsigned bits, bool symmetric,
                 const ScaleFormat& format) {
  if (symmetric) {
    const auto high = static_cast<float>((1 << (bits - 1)) - 1);
    float largest = 0;
    for (std::uint64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i * stride]));
    return {format.round(largest / high), 0, -high, high};
  }
  float least = x[0];
  float largest = x[0];
  for (std::uint64_t i = 1; i < count; ++i) {
    least = std::min(least, x[i * stride]);
    largest = std::max(largest, x[i * stride]);
  }
  const auto high = static_cast<float>((1 << bits) - 1);
  const float zero = format.round(least) + 0.0F;  // never -0: equal blocks have equal bytes
  return {format.round(std::max(0.0F, largest - zero) / high), zero, 0, high};
}

// Sizes and places of a block of n tokens of c channels.
struct Format {
  unsigned bits;
  bool symmetric;
  bool per_channel;
  std::uint64_t group;  // channels per group (per_token)
  ScaleFormat scale;
  std::uint64_t channels;

  [[nodiscard]] std::uint64_t groups() const { return per_channel ? 1 : (channels + group - 1) / group; }
  [[nodiscard]] std::uint64_t rows(std::uint64_t tokens) const { return per_channel ? channels : tokens; }
  [[nodiscard]] std::uint64_t row_bytes(std::uint64_t tokens) const {
    return packed_bytes(per_channel ? tokens : channels, bits);
  }
  [[nodiscard]] std::uint64_t code_bytes(std::uint64_t tokens) const { return rows(tokens) * row_bytes(tokens); }
  [[nodiscard]] std::uint64_t one_scale_array(std::uint64_t tokens) const {
    return rows(tokens) * groups() * scale.size();
  }
  [[nodiscard]] std::uint64_t scale_bytes(std::uint64_t tokens) const {
    return one_scale_array(tokens) * (symmetric ? 1 : 2);
  }
};

// A block, to be read.
class Reader {
 public:
  Reader(const Format& format, const std::uint8_t* bytes, std::uint64_t tokens)
      : format_(format),
        codes_(bytes),
        row_bytes_(format.row_bytes(tokens)),
        scales_(bytes + format.code_bytes(tokens)),
        zeros_(scales_ + format.one_scale_array(tokens)) {}

  [[nodiscard]] Codes codes(std::uint64_t row) const {
    return {codes_ + row * row_bytes_, row_bytes_, format_.bits, format_.symmetric};
  }
  [[nodiscard]] float scale(std::uint64_t row, std::uint64_t group) const {
    return format_.scale.load(scales_, row * format_.groups() + group);
  }
  [[nodiscard]] float zero(std::uint64_t row, std::uint64_t group) const {
    return format_.symmetric ? 0.0F : format_.scale.load(zeros_, row * format_.groups() + group);
  }

 private:
  const Format& format_;
  const std::uint8_t* codes_;
  std::uint64_t row_bytes_;
  const std::uint8_t* scales_;
  const std::uint8_t* zeros_;
};

}  // namespace quantize
