// bf16 and f16 <-> f32, rounded to nearest, ties to even; infinities stay, NaN stays a NaN (quiet). Values too large
// become infinity, except with the `_saturated` functions, which stop at the largest finite value: a scale must not
// become infinite. Storage is the 16 bits of the number. Plain integer arithmetic: the same bits on every machine.
#pragma once

#include <bit>
#include <cstdint>

namespace kvlab {

inline constexpr float f16_largest = 65504.0F;
inline constexpr float bf16_largest = 0x1.FEp127F;

constexpr float bf16_to_f32(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

constexpr std::uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = bits + 0x7FFFU + ((bits >> 16) & 1U);
  const bool nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  return static_cast<std::uint16_t>((nan ? bits | 0x400000U : rounded) >> 16);
}

constexpr float f16_to_f32(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t magnitude = half & 0x7FFFU;
  // Exponent and mantissa moved into f32's place are the number times 2^-112, subnormals included.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112F;
  const std::uint32_t special = 0x7F800000U | (magnitude << 13);  // infinity or NaN
  const std::uint32_t bits = magnitude >= 0x7C00U ? special : std::bit_cast<std::uint32_t>(scaled);
  return std::bit_cast<float>(sign | bits);
}

constexpr std::uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7E00U);
  if (magnitude >= 0x477FF000U) return static_cast<std::uint16_t>(sign | 0x7C00U);  // rounds past 65504
  if (magnitude < 0x38800000U) {  // below the smallest normal 2^-14: adding 0.5 rounds at 2^-24, f16's last place
    const float sum = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(sum) - 0x3F000000U));
  }
  const std::uint32_t rounded = magnitude + 0xFFFU + ((magnitude >> 13) & 1U);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

constexpr std::uint16_t f32_to_f16_saturated(float value) {
  return f32_to_f16(value > f16_largest ? f16_largest : value < -f16_largest ? -f16_largest : value);
}

constexpr std::uint16_t f32_to_bf16_saturated(float value) {
  return f32_to_bf16(value > bf16_largest ? bf16_largest : value < -bf16_largest ? -bf16_largest : value);
}

}  // namespace kvlab
