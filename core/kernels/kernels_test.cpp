// Every instruction set that this machine has against the long-hand kernels, on awkward shapes.
#include "core/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/base/dtype.hpp"
#include "core/base/memory.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

std::vector<float> normal(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (auto& value : values) value = distribution(engine);
  return values;
}

std::vector<Isa> fast_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : all_isas) {
    if (isa != Isa::scalar && has_isa(isa)) isas.push_back(isa);
  }
  return isas;
}

struct Shape {
  Dtype dtype;
  std::uint64_t tokens;
  std::uint64_t channels;
  std::uint64_t queries;
};

void check(const Kernels& fast, const Shape& s) {
  const Kernels& reference = kernels(Isa::scalar);
  const std::uint64_t stride = s.channels + 3;
  const std::vector<float> values = normal(s.tokens * stride, s.tokens + s.channels);
  std::vector<std::byte> stored(values.size() * size_of(s.dtype));
  from_f32(s.dtype, values.data(), stored.data(), values.size());
  // No byte behind the last row: a sanitizer sees a read too far.
  stored.resize((s.tokens == 0 ? 0 : (s.tokens - 1) * stride + s.channels) * size_of(s.dtype));
  stored.shrink_to_fit();
  const kvlab_rows rows{
      stored.data(), static_cast<kvlab_dtype>(s.dtype), 0, stride, s.tokens, s.channels, stored.data(), stored.size()};
  const std::uint64_t apart = s.tokens + 2;
  const std::vector<float> queries = normal(s.queries * (s.channels + 1), 3);
  std::vector<float> expected(s.queries * apart, 7.0F);
  std::vector<float> got = expected;
  reference.dots(&rows, queries.data(), s.channels + 1, s.queries, expected.data(), apart);
  fast.dots(&rows, queries.data(), s.channels + 1, s.queries, got.data(), apart);
  EXPECT_LT(test::relative(got, expected), 1e-5);
  for (std::uint64_t q = 0; q < s.queries; ++q) EXPECT_EQ(got[q * apart + s.tokens], 7.0F);

  const std::vector<float> weights = normal(s.queries * apart, 4);
  std::vector<float> sums(s.queries * (s.channels + 1), 0.5F);
  std::vector<float> wanted = sums;
  reference.sums(&rows, weights.data(), apart, s.queries, wanted.data(), s.channels + 1);
  fast.sums(&rows, weights.data(), apart, s.queries, sums.data(), s.channels + 1);
  EXPECT_LT(test::relative(sums, wanted), 1e-5);
  for (std::uint64_t q = 0; q < s.queries; ++q) EXPECT_EQ(sums[q * (s.channels + 1) + s.channels], 0.5F);
}

TEST(Kernels, RowsAreTheReferences) {
  for (const Isa isa : fast_isas()) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
      for (const std::uint64_t channels : {1U, 7U, 16U, 31U, 32U, 33U, 64U, 80U, 96U, 128U, 130U, 256U, 512U}) {
        for (const std::uint64_t tokens : {0U, 1U, 2U, 3U, 5U, 16U, 17U, 64U}) {
          for (const std::uint64_t queries : {1U, 2U, 3U, 4U, 7U}) {
            SCOPED_TRACE(std::string(name_of(isa)) + " " + name_of(dtype) + ", channels " + std::to_string(channels) +
                         ", tokens " + std::to_string(tokens) + ", queries " + std::to_string(queries));
            check(kernels(isa), {dtype, tokens, channels, queries});
          }
        }
      }
    }
  }
}

TEST(Kernels, SubnormalAndLargeHalvesAreRead) {
  const std::vector<float> values{6e-8F, -6e-5F, 65504.0F, -0.0F, 1e-7F, 3.0F};
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    std::vector<std::byte> stored(values.size() * 2);
    from_f32(dtype, values.data(), stored.data(), values.size());
    const kvlab_rows rows{stored.data(), static_cast<kvlab_dtype>(dtype), 0, 1, values.size(), 1, nullptr, 0};
    const float one = 1;
    std::vector<float> expected(values.size());
    kernels(Isa::scalar).dots(&rows, &one, 1, 1, expected.data(), 8);
    for (const Isa isa : fast_isas()) {
      std::vector<float> got(values.size());
      kernels(isa).dots(&rows, &one, 1, 1, got.data(), 8);
      EXPECT_EQ(got, expected) << name_of(isa) << " " << name_of(dtype);
    }
  }
}

TEST(Kernels, ExponentialsAreClose) {
  for (const Isa isa : all_isas) {
    if (!has_isa(isa)) continue;
    for (const std::size_t count : {0U, 1U, 7U, 8U, 15U, 16U, 17U, 1000U}) {
      std::vector<float> x(count + 1, 5.0F);
      for (std::size_t i = 0; i < count; ++i) x[i] = 2.0F - static_cast<float>(i) * 0.12F;
      if (count > 3) x[3] = -infinity;
      std::vector<float> before = x;
      const float sum = kernels(isa).exponentials(x.data(), count, 2.0F);
      double expected = 0;
      for (std::size_t i = 0; i < count; ++i) {
        const double e = std::exp(static_cast<double>(before[i]) - 2.0);
        expected += e;
        if (e > 2e-38) {
          EXPECT_NEAR(x[i] / e, 1, 3e-7) << name_of(isa) << " of " << before[i];
        } else {
          EXPECT_LE(x[i], 2.1e-38F) << name_of(isa);
        }
      }
      EXPECT_EQ(x[count], 5.0F);
      EXPECT_NEAR(sum, expected, 1e-5 * expected);
    }
  }
}

TEST(Kernels, ScalingFindsTheLargestAndWhatIsNotFinite) {
  for (const Isa isa : all_isas) {
    if (!has_isa(isa)) continue;
    for (const std::size_t count : {0U, 1U, 8U, 17U, 40U}) {
      std::vector<float> x = normal(count, count);
      float expected = -infinity;
      for (const float value : x) expected = std::max(expected, value * 0.25F);
      bool finite = true;
      std::vector<float> scaled = x;
      EXPECT_EQ(kernels(isa).scale_and_max(scaled.data(), count, 0.25F, finite), expected) << name_of(isa);
      EXPECT_TRUE(finite);
      for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(scaled[i], x[i] * 0.25F);
      for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
        for (std::size_t at = 0; at < count; at += 5) {
          std::vector<float> broken = x;
          broken[at] = bad;
          finite = true;
          kernels(isa).scale_and_max(broken.data(), count, 1, finite);
          EXPECT_FALSE(finite) << name_of(isa) << " at " << at;
        }
      }
    }
  }
}

TEST(Kernels, StreamCopyCopies) {
  for (const Isa isa : all_isas) {
    if (!has_isa(isa)) continue;
    Buffer to;
    for (const std::size_t count : {0U, 1U, 63U, 64U, 65U, 4096U, 5000U}) {
      std::vector<std::byte> from(count + 1);
      for (std::size_t i = 0; i < count; ++i) from[i] = static_cast<std::byte>(i * 7);
      auto* out = to.ensure<std::byte>(8192);
      out[count] = std::byte{99};
      kernels(isa).stream_copy(out, from.data(), count);
      EXPECT_TRUE(std::equal(out, out + count, from.begin()));
      EXPECT_EQ(out[count], std::byte{99});
    }
  }
}

}  // namespace
}  // namespace kvlab
