#include <gtest/gtest.h>
#include <kvlab/half.hpp>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

namespace kvlab {
namespace {

// The value of 16 bits with that many exponent bits, in f64, from the definition of IEEE 754.
double value_of(std::uint16_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000U) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  }
  const double fraction = exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                        : std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  return sign * fraction;
}

// Nearest of all finite values by search among neighbours of `guess`, ties to even; infinity from half a step beyond
// the largest.
std::uint16_t nearest_of(float x, int exponent_bits) {
  const auto infinity = static_cast<std::uint16_t>(((1 << exponent_bits) - 1) << (15 - exponent_bits));
  const double magnitude = std::fabs(static_cast<double>(x));
  std::uint16_t low = 0;
  std::uint16_t high = infinity;
  while (high - low > 1) {
    const auto middle = static_cast<std::uint16_t>((low + high) / 2);
    (value_of(middle, exponent_bits) <= magnitude ? low : high) = middle;
  }
  const double below = value_of(low, exponent_bits);
  const double step = below - value_of(static_cast<std::uint16_t>(low - 1), exponent_bits);
  const double above = high == infinity ? below + step : value_of(high, exponent_bits);
  const double to_below = magnitude - below;
  const double to_above = above - magnitude;
  const bool up = to_above < to_below || (to_above == to_below && (low & 1U) != 0);
  return static_cast<std::uint16_t>((up ? high : low) | (std::signbit(x) ? 0x8000U : 0U));
}

TEST(Half, EveryF16ReadsBackAndIsItself) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const double exact = value_of(half, 5);
    if (std::isnan(exact)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(half)));
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(f16_to_f32(half)))));
      continue;
    }
    ASSERT_EQ(f16_to_f32(half), exact) << bits;
    ASSERT_EQ(f32_to_f16(f16_to_f32(half)), half) << bits;
  }
}

TEST(Half, EveryBf16ReadsBackAndIsItself) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const double exact = value_of(half, 8);
    if (std::isnan(exact)) {
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(bf16_to_f32(half)))));
      continue;
    }
    ASSERT_EQ(bf16_to_f32(half), exact) << bits;
    ASSERT_EQ(f32_to_bf16(bf16_to_f32(half)), half) << bits;
  }
}

TEST(Half, RoundsToNearestEven) {
  std::mt19937 engine(1);
  const auto check = [](float x) {
    ASSERT_EQ(f32_to_f16(x), nearest_of(x, 5)) << x;
    ASSERT_EQ(f32_to_bf16(x), nearest_of(x, 8)) << x;
  };
  for (int i = 0; i < 200'000; ++i) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(engine()));
    if (std::isfinite(x)) check(x);
    // Around f16's range, ties and near ties included.
    const float near =
        std::bit_cast<float>((0x33000000U + static_cast<std::uint32_t>(engine()) % 0x15000000U) & ~0xFFFU);
    check(near);
    check(std::nextafter(near, 0.0F));
  }
  for (const float x : {65504.0F, 65519.0F, 65520.0F, 65536.0F, 0x1p-24F, 0x1p-25F, 0x1.8p-25F, 0.0F, -0.0F, 3e38F})
    check(x);
}

TEST(Half, InfinityStaysAndSaturationStopsBeforeIt) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f32_to_f16(infinity), 0x7C00);
  EXPECT_EQ(f32_to_f16(-infinity), 0xFC00);
  EXPECT_EQ(f32_to_bf16(infinity), 0x7F80);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(f16_to_f32(f32_to_f16_saturated(1e9F)), f16_largest);
  EXPECT_EQ(f16_to_f32(f32_to_f16_saturated(-infinity)), -f16_largest);
  EXPECT_EQ(bf16_to_f32(f32_to_bf16_saturated(3.4e38F)), bf16_largest);
}

}  // namespace
}  // namespace kvlab
