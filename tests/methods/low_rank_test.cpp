// low_rank where its Gram matrix does not suffice.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/support/support.hpp"

namespace kvlab {
namespace {

// `count` orthonormal vectors of length n, by Gram-Schmidt in f64, twice.
std::vector<std::vector<double>> orthonormal(std::size_t count, std::size_t n, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> distribution;
  std::vector<std::vector<double>> vectors;
  while (vectors.size() < count) {
    std::vector<double> v(n);
    for (auto& x : v) x = distribution(engine);
    for (int round = 0; round < 2; ++round) {
      for (const auto& u : vectors) {
        double dot = 0;
        for (std::size_t i = 0; i < n; ++i) dot += u[i] * v[i];
        for (std::size_t i = 0; i < n; ++i) v[i] -= dot * u[i];
      }
      double norm = 0;
      for (const double x : v) norm += x * x;
      for (auto& x : v) x /= std::sqrt(norm);
    }
    vectors.push_back(v);
  }
  return vectors;
}

double error_at_rank(const std::vector<float>& rows, std::uint32_t channels, std::uint64_t tokens, int rank,
                     const char* factor_dtype) {
  const LayerShape shape = test::shape(1, 1, 1, channels, Dtype::f32);
  test::Data data(shape, tokens, 1);
  data.set_keys(rows);
  Pipeline pipeline;
  pipeline.keys = test::spec("low_rank", {{"rank", std::to_string(rank)}, {"factor_dtype", factor_dtype}});
  LayerCache cache(pipeline, shape);
  ThreadPool pool(1);
  cache.prefill(data.prefill(), pool);
  std::vector<float> decoded(rows.size());
  std::vector<float> values(rows.size());
  cache.decompress(decoded.data(), values.data(), pool);
  return test::relative(decoded, rows);
}

// Singular values 1, 1/10, 1/100 ...: beyond 1e-4 the Gram matrix in f32 holds nothing but rounding.
TEST(LowRank, SteepSpectraKeepTheErrorOfEckartAndYoung) {
  constexpr std::size_t channels = 16;
  constexpr std::size_t tokens = 200;
  constexpr std::size_t full = 8;
  const auto left = orthonormal(full, tokens, 1);
  const auto right = orthonormal(full, channels, 2);
  std::vector<float> rows(tokens * channels);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t c = 0; c < channels; ++c) {
      double x = 0;
      for (std::size_t i = 0; i < full; ++i) x += std::pow(10.0, -static_cast<double>(i)) * left[i][t] * right[i][c];
      rows[t * channels + c] = static_cast<float>(x);
    }
  }
  for (const int rank : {1, 2, 3, 4, 5}) {
    const double expected = std::pow(10.0, -rank) * std::sqrt(1.0101);
    EXPECT_NEAR(error_at_rank(rows, channels, tokens, rank, "f32") / expected, 1, 0.01) << "rank " << rank;
  }
  EXPECT_LT(error_at_rank(rows, channels, tokens, 6, "f16"), 5e-4);
  EXPECT_LT(error_at_rank(rows, channels, tokens, 6, "bf16"), 5e-3);
}

TEST(LowRank, BlocksOfLessThanTheRankAreHeldWhole) {
  const std::vector<float> zeros(300 * 64, 0.0F);
  EXPECT_EQ(error_at_rank(zeros, 64, 300, 8, "f32"), 0);
  std::vector<float> one(300 * 64);
  for (std::size_t i = 0; i < one.size(); ++i) {
    const std::size_t token = i / 64;
    const std::size_t channel = i % 64;
    one[i] = static_cast<float>((token + 1) * (channel + 1));
  }
  EXPECT_LT(error_at_rank(one, 64, 300, 8, "f32"), 1e-6);
}

}  // namespace
}  // namespace kvlab
