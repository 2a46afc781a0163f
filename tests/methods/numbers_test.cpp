// Published or recomputed figures: errors of quantizers on noise, Eckart-Young, byte counts, closed forms.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "experiments/workloads/synthetic/generator.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

using test::Data;
using test::shape;
using test::spec;
using Parameters = std::vector<std::pair<std::string, std::string>>;

// Keys through one codec: what comes out, and the bytes of K alone.
struct RoundTrip {
  std::vector<float> rows;
  Bytes bytes;
};

RoundTrip round_trip(const MethodSpec& codec, const Data& data) {
  Pipeline pipeline;
  pipeline.keys = codec;
  LayerCache cache(pipeline, data.shape, test::memory());
  cache.prefill(data.prefill());
  RoundTrip result{std::vector<float>(data.keys.size()), cache.bytes()};
  result.bytes.uncompressed = 0;  // V
  for (std::uint64_t index = 0; index < data.shape.heads(); ++index) {
    const auto kv_head = static_cast<std::uint32_t>(index % data.shape.kv_heads);
    const Head& head = cache.head(index / data.shape.kv_heads, kv_head);
    for (const auto& segment : head.keys.segments) {
      float* rows = result.rows.data() + (index * data.tokens + segment.first) * data.shape.head_dim_keys;
      cache.backend().read(cache.layer().keys, kv_head, segment, head.positions.view(), 0, segment.tokens, rows);
    }
  }
  return result;
}

double mean_squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum / static_cast<double>(a.size());
}

// Mean squared error on N(0,1) in f32, f16 scales. Monte Carlo with 4 million elements: 0.5 % is five standard errors.
TEST(Numbers, QuantizersOnNoise) {
  const Data data(shape(8, 8, 8, 128), 512, 0, 11);
  const std::vector<std::pair<Parameters, double>> expected{
      {{{"bits", "8"}, {"group", "32"}}, 2.86e-5},
      {{{"bits", "8"}, {"symmetric", "false"}, {"group", "32"}}, 2.12e-5},
      {{{"bits", "4"}, {"symmetric", "false"}, {"group", "32"}}, 6.12e-3},
      {{{"bits", "4"}, {"symmetric", "false"}, {"group", "64"}}, 8.04e-3},
      {{{"bits", "4"}, {"symmetric", "false"}, {"group", "128"}}, 9.95e-3},
      {{{"bits", "4"}, {"group", "32"}}, 9.41e-3},
      {{{"bits", "2"}, {"symmetric", "false"}, {"group", "32"}}, .1542},
      {{{"bits", "2"}, {"symmetric", "false"}, {"group", "128"}}, .2504},
      {{{"bits", "4"}, {"symmetric", "false"}, {"group", "32"}, {"scales", "per_channel"}}, 6.12e-3},
  };
  for (const auto& [parameters, error] : expected) {
    EXPECT_NEAR(mean_squared_error(round_trip(spec("quantize", parameters), data).rows, data.keys) / error, 1, 0.007)
        << error;
  }
}

TEST(Numbers, QuantizedBytes) {
  const Data data(shape(1, 1, 1, 128, Dtype::bf16), 512, 0);
  const auto per_token = [&](const Parameters& parameters) {
    return static_cast<double>(round_trip(spec("quantize", parameters), data).bytes.total()) / 512;
  };
  EXPECT_EQ(per_token({}), 130);                                                       // for 256: 1.969x, never 2x
  EXPECT_EQ(per_token({{"bits", "4"}, {"symmetric", "false"}}), 68);                   // 3.765x
  EXPECT_EQ(per_token({{"bits", "2"}, {"symmetric", "false"}, {"group", "32"}}), 48);  // 3 bits an element
  EXPECT_EQ(per_token({{"bits", "3"}, {"scale_dtype", "f32"}}), 48 + 4);
  EXPECT_EQ(per_token({{"bits", "4"}, {"scales", "per_channel"}, {"group", "32"}}), 64 + 128.0 * 2 / 32);
}

// KIVI at 2 bits, groups of 32, the last R tokens of K and V raw: compression of the whole cache.
TEST(Numbers, KiviBytes) {
  const auto ratio = [&](std::uint64_t tokens, std::uint64_t tail) {
    const Data data(shape(1, 1, 1, 128, Dtype::f16), tokens, 0);
    Pipeline pipeline;
    pipeline.tail = tail;
    pipeline.keys =
        spec("quantize", {{"bits", "2"}, {"symmetric", "false"}, {"scales", "per_channel"}, {"group", "32"}});
    pipeline.values = spec("quantize", {{"bits", "2"}, {"symmetric", "false"}, {"group", "32"}});
    LayerCache cache(pipeline, data.shape, test::memory());
    cache.prefill(data.prefill());
    return static_cast<double>(2 * 2 * 128 * tokens) / static_cast<double>(cache.bytes().total());
  };
  EXPECT_NEAR(ratio(4096, 128), 4.697, 5e-4);
  EXPECT_NEAR(ratio(4096, 32), 5.159, 5e-4);
  EXPECT_NEAR(ratio(512, 128), 2.56, 5e-4);
  EXPECT_NEAR(ratio(4096, 0), 16.0 / 3, 5e-4);
}

// sigma_i = 1/i, 128 values: relative error at r, from the discarded sigma squared.
TEST(Numbers, EckartYoung) {
  const LayerShape layer = shape(1, 1, 1, 128);
  const std::uint64_t tokens = 512;
  Data data(layer, tokens, 0);
  std::vector<float> keys(tokens * 128);
  std::vector<float> values(keys.size());
  HeadDraw draw{1, 0, 0, 0, tokens, tokens, 128, layer.attention_scale, keys, values, {}, {}};
  const Generator generator = spectrum();
  std::vector<kvlab_value> parameters;
  for (const auto& parameter : generator.parameters) parameters.push_back(parameter.default_value);
  generator.draw(parameters, draw);
  data.set_keys(keys);
  const std::vector<std::pair<const char*, double>> expected{{"8", .2589}, {"16", .1796}, {"32", .1185}, {"64", .0687}};
  for (const auto& [rank, error] : expected) {
    const auto result = round_trip(spec("low_rank", {{"rank", rank}, {"factor_dtype", "f32"}}), data);
    EXPECT_NEAR(test::relative(result.rows, data.keys) / error, 1, 1e-3) << rank;
    EXPECT_EQ(result.bytes.payload, 512U * std::stoul(rank) * 4);
    EXPECT_EQ(result.bytes.bases, 128U * std::stoul(rank) * 4);
  }
  // Energy .99: the smallest r whose squares reach it.
  double total = 0;
  for (int i = 1; i <= 128; ++i) total += 1.0 / (i * i);
  std::uint64_t rank = 0;
  for (double sum = 0; sum < .99 * total;) {
    ++rank;
    sum += 1.0 / static_cast<double>(rank * rank);
  }
  const auto result = round_trip(spec("low_rank", {{"energy", "0.99"}}), data);
  EXPECT_EQ(result.bytes.payload, 512 * rank * 2);
  EXPECT_EQ(result.bytes.indices, 2U);
}

TEST(Numbers, LowRankHoldsTheBlockItselfWhereFactorsAreNoSmaller) {
  const Data data(shape(1, 1, 1, 64, Dtype::bf16), 40, 0);
  const auto result = round_trip(spec("low_rank", {{"rank", "32"}}), data);  // 32 * 104 >= 40 * 64
  EXPECT_EQ(result.bytes.payload, 40U * 64 * 2);
  EXPECT_EQ(result.bytes.bases, 0U);
  EXPECT_EQ(result.rows, data.keys);
}

// The definition once more, in f64 and without packing: every code must be the nearest level, to f32 rounding.
TEST(Numbers, QuantizeIsTheNearestLevelOnAwkwardShapes) {
  for (const std::uint32_t head_dim : {1U, 2U, 3U, 64U, 80U, 96U, 128U, 256U}) {
    for (const std::uint64_t tokens : {1U, 2U, 127U, 129U}) {
      const Data data(shape(1, 1, 1, head_dim), tokens, 0, head_dim + tokens);
      for (const int bits : {2, 3, 4, 5, 6, 8}) {
        for (const std::uint64_t group : {0U, 7U, 32U}) {
          const auto result = round_trip(
              spec("quantize",
                   {{"bits", std::to_string(bits)}, {"group", std::to_string(group)}, {"scale_dtype", "f32"}}),
              data);
          const std::uint64_t size = group == 0 ? head_dim : group;
          for (std::uint64_t i = 0; i < data.keys.size(); ++i) {
            const std::uint64_t channel = i % head_dim;
            const std::uint64_t begin = i - channel + channel / size * size;
            const std::uint64_t end = std::min(begin + size, i - channel + head_dim);
            double largest = 0;
            for (std::uint64_t j = begin; j < end; ++j)
              largest = std::max(largest, std::fabs(static_cast<double>(data.keys[j])));
            const double step = largest / (std::ldexp(1.0, bits - 1) - 1);
            const double level = step == 0 ? 0 : std::nearbyint(data.keys[i] / step) * step;
            ASSERT_NEAR(result.rows[i], level, step * 0.5001) << bits << ' ' << group;
            ASSERT_LE(std::fabs(result.rows[i] - data.keys[i]), step * 0.5001) << bits << ' ' << group;
          }
        }
      }
    }
  }
}

TEST(Numbers, ZerosConstantsAndHugeValuesDecodeFinite) {
  const LayerShape layer = shape(1, 1, 1, 64);
  for (const float value : {0.0F, 1.0F, -3.0F, 1e-30F, 1e30F, -1e38F, 6e-8F}) {
    Data data(layer, 130, 0);
    std::vector<float> rows(data.keys.size(), value);
    rows[5] = -value / 2;
    data.set_keys(rows);
    for (const char* symmetric : {"true", "false"}) {
      for (const char* scales : {"per_token", "per_channel"}) {
        for (const char* dtype : {"f16", "bf16", "f32"}) {
          const auto result = round_trip(
              spec("quantize", {{"symmetric", symmetric}, {"scales", scales}, {"scale_dtype", dtype}}), data);
          for (const float x : result.rows) ASSERT_TRUE(std::isfinite(x)) << value << ' ' << symmetric << ' ' << dtype;
          if (value == 0) {
            EXPECT_EQ(result.rows, rows);
          }
        }
      }
    }
    if (std::fabs(value) > 2e37F) continue;  // factors beyond f32: refused, see precision_test.cpp
    for (const char* dtype : {"f16", "bf16", "f32"}) {
      const auto result = round_trip(spec("low_rank", {{"rank", "2"}, {"factor_dtype", dtype}}), data);
      for (const float x : result.rows) ASSERT_TRUE(std::isfinite(x)) << value << ' ' << dtype;
    }
  }
}

// Which tokens a selector keeps.
std::vector<std::uint32_t> kept_by(const MethodSpec& selector, const Data& data, std::uint64_t budget,
                                   std::uint32_t kv_head = 0) {
  Pipeline pipeline;
  pipeline.select = {{selector, {budget, 1}}};
  LayerCache cache(pipeline, data.shape, test::memory());
  cache.prefill(data.prefill());
  std::vector<std::uint32_t> kept;
  cache.head(0, kv_head).positions.write_out(kept);
  return kept;
}

TEST(Numbers, SelectorsKeepWhatTheyAreNamedFor) {
  Data data(shape(1, 2, 4, 4), 64, 2);
  EXPECT_EQ(kept_by(spec("sliding_window"), data, 3), (std::vector<std::uint32_t>{61, 62, 63}));

  std::vector<float> keys(data.keys.size(), 0.1F);
  std::vector<float> values(data.values.size(), 1.0F);
  for (const std::size_t token : {7U, 20U}) keys[token * 4] = 30;
  keys[33 * 4 + 1] = keys[33 * 4] = keys[33 * 4 + 2] = keys[33 * 4 + 3] = 0;
  values[40 * 4] = 500;
  data.set_keys(keys);
  data.set_values(values);
  EXPECT_EQ(kept_by(spec("magnitude", {{"of", "keys"}}), data, 2), (std::vector<std::uint32_t>{7, 20}));
  EXPECT_EQ(kept_by(spec("magnitude", {{"of", "keys"}, {"prefer", "smallest"}}), data, 1),
            (std::vector<std::uint32_t>{33}));
  EXPECT_EQ(kept_by(spec("magnitude", {{"of", "values"}}), data, 1), (std::vector<std::uint32_t>{40}));
  EXPECT_EQ(kept_by(spec("magnitude"), data, 1), (std::vector<std::uint32_t>{40}));  // .2 * 500 against 30 * 2

  std::fill(data.observed_rows.begin(), data.observed_rows.end(), 0.0F);
  for (std::size_t row = 0; row < 4 * 2; ++row) data.observed_rows[row * 4] = 1;  // all look along channel 0
  EXPECT_EQ(kept_by(spec("attention_score"), data, 2), (std::vector<std::uint32_t>{7, 20}));
}

TEST(Numbers, AttentionScoreSeesNoLaterToken) {
  Data data(shape(1, 1, 1, 4), 10, 2);
  std::vector<float> keys(data.keys.size(), 0.0F);
  keys[9 * 4] = 50;  // position 9: only the query there may see it
  data.set_keys(keys);
  data.observed_positions = {3, 4};
  std::fill(data.observed_rows.begin(), data.observed_rows.end(), 1.0F);
  EXPECT_EQ(kept_by(spec("attention_score"), data, 4), (std::vector<std::uint32_t>{0, 1, 2, 3}));
}

TEST(Numbers, RandomKeepsEveryTokenEquallyOften) {
  std::vector<int> times(50);
  const Data data(shape(1, 1, 1, 1), 50, 0);
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    Data seeded = data;
    seeded.shape.seed = seed;
    for (const auto token : kept_by(spec("random"), seeded, 10)) ++times[token];
  }
  for (const int count : times) EXPECT_NEAR(count, 400, 90);  // five standard deviations of a binomial
  const Data two(shape(1, 2, 2, 1), 50, 0);
  EXPECT_NE(kept_by(spec("random"), two, 10, 0), kept_by(spec("random"), two, 10, 1));
}

}  // namespace
}  // namespace kvlab
