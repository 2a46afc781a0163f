// low_rank where its Gram matrix does not suffice.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "core/base/memory.hpp"
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
  LayerCache cache(pipeline, shape, test::memory(1));
  cache.prefill(data.prefill());
  std::vector<float> decoded(rows.size());
  std::vector<float> values(rows.size());
  cache.decompress(decoded.data(), values.data());
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

// A block, and what it is asked for.
struct Encoded {
  CodecInstance codec;
  Buffer memory;
  Buffer scratch;
  kvlab_block block{};

  Encoded(const test::Data& data, const std::vector<std::pair<std::string, std::string>>& parameters)
      : codec(test::spec("low_rank", parameters), data.shape.describe(KVLAB_ROLE_KEYS)) {
    const std::uint64_t channels = data.shape.head_dim_keys;
    kvlab_encode_in in{};
    in.struct_size = sizeof in;
    in.view = {data.stored_keys.data(),
               static_cast<kvlab_dtype>(data.shape.dtype),
               1,
               data.tokens,
               channels,
               static_cast<std::int64_t>(data.tokens * channels),
               static_cast<std::int64_t>(channels)};
    in.scratch = scratch.ensure<std::byte>(codec.traits().encode_scratch);
    kvlab_encode_out out{};
    out.struct_size = sizeof out;
    out.capacity = codec.bound(data.tokens);
    out.bytes = memory.ensure<std::uint8_t>(out.capacity + KVLAB_READABLE);
    codec.encode(in, out);
    block.struct_size = sizeof block;
    block.heads = 1;
    block.bytes = out.bytes;
    block.size = out.size;
    block.tokens = data.tokens;
  }
};

// Additions in order, products rounded: what the block's bytes mean, on every machine.
TEST(LowRank, RowsOfF32FactorsAreTheSameToTheLastBitOnEveryInstructionSet) {
  constexpr std::uint64_t channels = 64;
  constexpr std::uint64_t tokens = 100;
  constexpr std::uint64_t rank = 16;
  const test::Data data(test::shape(1, 1, 1, channels), tokens);
  Encoded made(data, {{"rank", "16"}, {"factor_dtype", "f32"}});
  std::vector<float> rows(tokens * channels);
  made.codec.decode(made.block, 0, tokens, rows.data(), channels,
                    made.scratch.ensure<std::byte>(made.codec.traits().decode_scratch));
  std::vector<float> factors(rank * (tokens + channels));
  std::memcpy(factors.data(), made.block.bytes, factors.size() * sizeof(float));
  for (std::uint64_t t = 0; t < tokens; ++t) {
    for (std::uint64_t c = 0; c < channels; ++c) {
      float sum = 0;
      for (std::uint64_t j = 0; j < rank; ++j) {
        const volatile float product = factors[t * rank + j] * factors[tokens * rank + j * channels + c];
        sum += product;
      }
      ASSERT_EQ(rows[t * channels + c], sum) << "token " << t << ", channel " << c;
    }
  }
}

// A rank that the block's size does not go with is refused before anything is read by it.
TEST(LowRank, DamagedRanksAreRefused) {
  constexpr std::uint64_t channels = 64;
  constexpr std::uint64_t tokens = 100;
  const test::Data data(test::shape(1, 1, 1, channels), tokens);
  Encoded made(data, {{"energy", "0.5"}});
  auto* stored = const_cast<std::uint8_t*>(made.block.bytes) + made.block.size - 2;
  std::uint16_t own = 0;
  std::memcpy(&own, stored, 2);
  std::vector<float> rows(tokens * channels);
  std::vector<float> queries(channels, 1.0F);
  Buffer prepared;
  Buffer accumulator;
  const auto& traits = made.codec.traits();
  void* own_query = prepared.ensure<std::byte>(made.codec.prepared_bytes(1));
  made.codec.prepare(0, queries.data(), 1, own_query, made.scratch.ensure<std::byte>(traits.attend_scratch));
  const std::vector<std::function<void()>> calls{
      [&] {
        made.codec.decode(made.block, 0, tokens, rows.data(), channels,
                          made.scratch.ensure<std::byte>(traits.decode_scratch));
      },
      [&] {
        made.codec.scores(own_query, 1, made.block, 0, tokens, rows.data(), tokens,
                          made.scratch.ensure<std::byte>(traits.attend_scratch));
      },
      [&] {
        made.codec.accumulate(rows.data(), 1, tokens, made.block, 0, tokens,
                              accumulator.ensure<float>(made.codec.width()),
                              made.scratch.ensure<std::byte>(traits.attend_scratch));
      },
  };
  for (const int rank : {0, own - 1, own + 1, 64, 65, 100, 20000, 65535}) {
    const auto written = static_cast<std::uint16_t>(rank);
    std::memcpy(stored, &written, 2);
    for (const auto& call : calls) {
      try {
        call();
        ADD_FAILURE() << "rank " << rank << " is taken";
      } catch (const MethodError& error) {
        EXPECT_EQ(error.status, KVLAB_INVALID_ARGUMENT);
        EXPECT_NE(std::string(error.what()).find("low_rank: a damaged block: rank " + std::to_string(rank)),
                  std::string::npos)
            << error.what();
      }
    }
  }
  std::memcpy(stored, &own, 2);
  for (const auto& call : calls) EXPECT_NO_THROW(call());
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
