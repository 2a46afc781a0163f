// Attention on the bytes of a block against attention over its decoded rows in f64: what the fused kernels' 16-bit
// queries and weights may cost. Worst query head below 2e-3, where logits are large, where keys have outliers, where
// numbers lie at the ends of f32.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

#include "experiments/config/node.hpp"
#include "experiments/workloads/workload.hpp"
#include "tests/support/attention.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

using test::Data;
using Parameters = std::vector<std::pair<std::string, std::string>>;

constexpr double promised = 2e-3;

struct Input {
  LayerShape shape;
  Prefill prefill;
  QueryTensor judged;
};

Input input_of(const Data& data) { return {data.shape, data.prefill(), data.judged()}; }

// Of the differences between a cache's attention and the exact one, relative to the output: of a query head (all its
// queries together), of one query.
struct Worst {
  double head = 0;
  double query = 0;
  std::string where;

  void include(double of_head, double of_query, const std::string& what) {
    if (!(of_head <= head)) {
      head = of_head;
      where = what;
    }
    query = std::max(query, of_query);
  }
};

std::string text_of(const std::string& method, const Parameters& parameters) {
  std::string text = method;
  for (const auto& [name, value] : parameters) text += " " + name + "=" + value;
  return text;
}

void compare(const Input& input, const std::string& method, const Parameters& parameters, Worst& worst) {
  const LayerShape& shape = input.shape;
  const std::uint64_t queries = input.judged.count;
  Pipeline pipeline;
  pipeline.keys = pipeline.values = test::spec(method, parameters);
  std::vector<double> expected;
  for (const Isa isa : all_isas) {
    if (!has_isa(isa)) continue;
    const test::ForcedIsa forced(isa);
    LayerCache cache(pipeline, shape, test::memory());
    cache.prefill(input.prefill);
    std::vector<float> got(shape.batch * shape.query_heads * queries * shape.head_dim_values);
    cache.attend(input.judged, got.data());
    if (expected.empty()) {  // what is decoded does not depend on the instruction set
      std::vector<std::uint32_t> sequences(shape.batch);
      std::iota(sequences.begin(), sequences.end(), 0U);
      expected = test::attention(cache, sequences, input.judged);
    }
    const std::uint64_t size = queries * shape.head_dim_values;
    const auto error = [&](std::uint64_t first, std::uint64_t count) {
      double difference = 0;
      double norm = 0;
      for (std::uint64_t i = first; i < first + count; ++i) {
        difference += (got[i] - expected[i]) * (got[i] - expected[i]);
        norm += expected[i] * expected[i];
      }
      return difference == 0 ? 0 : std::sqrt(difference / norm);
    };
    for (std::uint64_t head = 0; head < shape.batch * shape.query_heads; ++head) {
      double query = 0;
      for (std::uint64_t q = 0; q < queries; ++q) {
        query = std::max(query, error(head * size + q * shape.head_dim_values, shape.head_dim_values));
      }
      worst.include(error(head * size, size), query,
                    text_of(method, parameters) + ", " + name_of(isa) + ", query head " + std::to_string(head));
    }
  }
}

void expect_within(const Worst& worst, const std::string& data) {
  std::printf("%-28s worst query head %.2e, worst query %.2e: %s\n", data.c_str(), worst.head, worst.query,
              worst.where.c_str());
  EXPECT_LT(worst.head, promised) << data << ": " << worst.where;
  EXPECT_LT(worst.query, promised) << data;
}

const std::vector<Parameters>& settings() {
  static const std::vector<Parameters> all{
      {{"bits", "8"}},
      {{"bits", "8"}, {"symmetric", "false"}, {"scale_dtype", "f32"}},
      {{"bits", "4"}, {"symmetric", "false"}},
      {{"bits", "4"}, {"group", "32"}},
      {{"bits", "5"}, {"symmetric", "false"}, {"group", "16"}, {"scale_dtype", "f32"}},
      {{"bits", "8"}, {"group", "8"}, {"scale_dtype", "bf16"}},
      {{"bits", "8"}, {"scales", "per_channel"}, {"symmetric", "false"}, {"scale_dtype", "f32"}},
      {{"bits", "4"}, {"scales", "per_channel"}, {"symmetric", "false"}},
      {{"bits", "3"}, {"scales", "per_channel"}, {"scale_dtype", "f32"}},
  };
  return all;
}

void compare_all(const Input& input, Worst& worst) {
  for (const auto& parameters : settings()) compare(input, "quantize", parameters, worst);
  for (const char* dtype : {"bf16", "f32"}) {
    compare(input, "low_rank", {{"rank", "12"}, {"factor_dtype", dtype}}, worst);
  }
}

void scale(std::vector<float>& rows, float factor) {
  for (auto& x : rows) x *= factor;
}

Data gaussian(std::uint32_t head_dim, float query_gain, std::uint64_t tokens = 300) {
  Data data(test::shape(1, 2, 4, head_dim), tokens, 8, head_dim);
  scale(data.judged_rows, query_gain);
  return data;
}

// Logits N(0, gain^2).
TEST(Precision, GaussianKeysAndLogitsUpToThousands) {
  for (const float gain : {1.0F, 10.0F, 30.0F, 100.0F, 1000.0F}) {
    Worst worst;
    for (const std::uint32_t head_dim : {64U, 128U}) compare_all(input_of(gaussian(head_dim, gain)), worst);
    if (gain == 1.0F) compare_all(input_of(gaussian(512, gain, 130)), worst);
    char what[64];
    std::snprintf(what, sizeof what, "gaussian, logits of %g", gain);
    expect_within(worst, what);
  }
}

// Keys whose magnitudes are all the same: what they are multiplied with is off by as much as the bound says.
TEST(Precision, FlatKeys) {
  for (const float gain : {1.0F, 10.0F, 60.0F, 200.0F}) {
    Data data = gaussian(64, gain);
    for (auto& x : data.keys) x = x < 0 ? -1.0F : 1.0F;
    data.set_keys(data.keys);
    Worst worst;
    compare_all(input_of(data), worst);
    char what[64];
    std::snprintf(what, sizeof what, "flat keys, logits of %g", gain);
    expect_within(worst, what);
  }
}

TEST(Precision, OutliersAmongKeys) {
  for (const float outlier : {100.0F, 1e4F}) {
    for (const bool channel : {false, true}) {
      Data data(test::shape(1, 8, 8, 64), 130, 8, 3);
      for (std::size_t i = 0; i < data.keys.size(); ++i) {
        const bool one = channel ? i % 64 == 5 : i % 3001 == 7;
        if (one) data.keys[i] = data.keys[i] < 0 ? -outlier : outlier;
      }
      data.set_keys(data.keys);
      Worst worst;
      compare_all(input_of(data), worst);
      char what[64];
      std::snprintf(what, sizeof what, "%s of %g", channel ? "a channel" : "a few keys", outlier);
      expect_within(worst, what);
    }
  }
}

// Where the largest product of a weight and a value decides how the others are rounded.
TEST(Precision, OutliersAmongValues) {
  for (const float outlier : {100.0F, 1e4F}) {
    Data data = gaussian(64, 3);
    for (std::size_t i = 0; i < data.values.size(); i += 1001) data.values[i] *= outlier;
    for (std::size_t i = 64 * 17; i < 64 * 18; ++i) data.values[i] *= 1e-3F;
    data.set_values(data.values);
    Worst worst;
    compare_all(input_of(data), worst);
    char what[64];
    std::snprintf(what, sizeof what, "a few values of %g", outlier);
    expect_within(worst, what);
  }
}

void compare_trace(const char* name) {
  const Node tree =
      parse_yaml_value(std::string("{trace: ") + KVLAB_SOURCE_DIR "/configs/traces/" + name + "}", "the test");
  // Resolved twice, as a runner and its worker do.
  const Json checked = resolve_workload(tree, "the workload", "")->portable();
  const Workload workload =
      resolve_workload(to_node(checked, "the workload"), "the workload", "", true)->load(1, test::backend());
  for (const float gain : {1.0F, 30.0F}) {
    Worst worst;
    for (const auto& layer : workload.layers) {
      constexpr std::uint64_t every = 8;
      const std::uint64_t all = layer.judged.count;
      std::vector<std::uint32_t> positions;
      std::vector<float> rows;
      for (std::uint64_t q = 0; q < all; q += every) positions.push_back(layer.judged.positions[q]);
      for (std::uint64_t head = 0; head < layer.shape.batch * layer.shape.query_heads; ++head) {
        for (std::uint64_t q = 0; q < all; q += every) {
          const float* row = layer.judged.base + (head * all + q) * layer.shape.head_dim_keys;
          rows.insert(rows.end(), row, row + layer.shape.head_dim_keys);
        }
      }
      scale(rows, gain);
      const Input input{
          layer.shape, layer.prefill(),
          QueryTensor::contiguous(layer.shape, layer.shape.batch, positions.size(), rows.data(), positions)};
      for (const std::size_t i : {0U, 2U, 3U, 6U}) compare(input, "quantize", settings()[i], worst);
      compare(input, "low_rank", {{"rank", "32"}}, worst);
    }
    char what[64];
    std::snprintf(what, sizeof what, "%s, times %g", name, gain);
    expect_within(worst, what);
  }
}

TEST(Precision, RecordedText) { compare_trace("smollm2-135m.h5"); }
TEST(Precision, RecordedCopy) { compare_trace("smollm2-135m-copy.h5"); }

// ---- the ends of f32 ------------------------------------------------------------------------------------------------

// Subnormal numbers too: attention does not take for 0 what decodes to something else.
TEST(Precision, SmallAndLargeNumbersCountAsTheyDecode) {
  for (const float factor : {1e-37F, 1e-32F, 1e-25F, 1e25F, 1e33F}) {
    Worst worst;
    Data values = gaussian(64, 3);
    scale(values.values, factor);
    values.set_values(values.values);
    Data keys = gaussian(64, 3);  // the same logits, of keys and queries far from 1
    const float of_keys = std::max(factor, 1e-33F);
    scale(keys.keys, of_keys);
    keys.set_keys(keys.keys);
    scale(keys.judged_rows, 1 / of_keys);
    for (const char* symmetric : {"true", "false"}) {
      for (const char* scales : {"per_token", "per_channel"}) {
        const Parameters f32{{"symmetric", symmetric}, {"scales", scales}, {"scale_dtype", "f32"}};
        compare(input_of(values), "quantize", f32, worst);
        compare(input_of(keys), "quantize", f32, worst);
      }
    }
    if (factor > 1e-35F) {  // products of subnormal factors have few digits left
      compare(input_of(values), "low_rank", {{"rank", "12"}, {"factor_dtype", "f32"}}, worst);
      compare(input_of(keys), "low_rank", {{"rank", "12"}, {"factor_dtype", "f32"}}, worst);
    }
    char what[64];
    std::snprintf(what, sizeof what, "numbers times %g", static_cast<double>(factor));
    expect_within(worst, what);
  }
}

// Encodes and decodes; whether it was refused, by name.
bool refused(const Data& data, const std::string& method, const Parameters& parameters) {
  Pipeline pipeline;
  pipeline.keys = test::spec(method, parameters);
  LayerCache cache(pipeline, data.shape, test::memory());
  try {
    cache.prefill(data.prefill());
  } catch (const MethodError& error) {
    EXPECT_EQ(error.status, KVLAB_UNSUPPORTED);
    EXPECT_NE(std::string(error.what()).find(method + ": numbers near the largest of f32"), std::string::npos)
        << error.what();
    return true;
  }
  for (const float x : test::held(cache, 0, 0, KVLAB_ROLE_KEYS).rows) {
    if (!std::isfinite(x)) {
      ADD_FAILURE() << "it decodes to " << x;
      break;
    }
  }
  return false;
}

TEST(Precision, NumbersNearTheLargestDecodeFiniteOrAreRefused) {
  constexpr float f32 = 0x1.FFFFFEp127F;
  constexpr float bf16 = 0x1.FEp127F;
  const std::vector<std::pair<float, float>> ends{{-f32, f32}, {f32, f32},   {-bf16, bf16},     {0, f32},
                                                  {-bf16, 0},  {2e38F, f32}, {-2e38F, 1.5e38F}, {-f32, -3.2e38F}};
  int refusals = 0;
  int taken = 0;
  for (const auto& [low, high] : ends) {
    for (const std::uint32_t head_dim : {64U, 20U}) {
      Data data(test::shape(1, 1, 1, head_dim), 300, 1);
      for (std::size_t i = 0; i < data.keys.size(); ++i) {
        const auto share = static_cast<float>(i * 7 % 11) / 10;
        data.keys[i] = low * (1 - share) + high * share;
      }
      data.set_keys(data.keys);
      for (const char* bits : {"2", "3", "4", "5", "6", "8"}) {
        for (const char* symmetric : {"true", "false"}) {
          for (const char* scales : {"per_token", "per_channel"}) {
            for (const char* dtype : {"f16", "bf16", "f32"}) {
              const Parameters parameters{
                  {"bits", bits}, {"symmetric", symmetric}, {"scales", scales}, {"scale_dtype", dtype}};
              SCOPED_TRACE(text_of("quantize", parameters) + ", from " + std::to_string(low));
              std::vector<bool> answers;
              for (const Isa isa : all_isas) {
                if (!has_isa(isa)) continue;
                const test::ForcedIsa forced(isa);
                answers.push_back(refused(data, "quantize", parameters));
                ++(answers.back() ? refusals : taken);
                EXPECT_EQ(answers.back(), answers.front()) << name_of(isa);
              }
            }
          }
        }
      }
      for (const char* dtype : {"f16", "bf16", "f32"}) {
        for (const char* energy : {"0", "0.9"}) {
          ++(refused(data, "low_rank", {{"rank", "4"}, {"energy", energy}, {"factor_dtype", dtype}}) ? refusals
                                                                                                     : taken);
        }
      }
    }
  }
  EXPECT_GT(refusals, 0);
  EXPECT_GT(taken, refusals);
}

// Queries that make logits beyond f32, or are no numbers, are an error and not an answer.
TEST(Precision, QueriesBeyondF32AreErrors) {
  constexpr float largest = 0x1.FFFFFEp127F;
  for (const float bad : {largest, INFINITY, NAN}) {
    for (const auto& parameters : settings()) {
      for (const Isa isa : all_isas) {
        if (!has_isa(isa)) continue;
        const test::ForcedIsa forced(isa);
        Data data = gaussian(64, 1, 130);
        for (std::size_t i = 0; i < data.judged_rows.size(); ++i) {
          if (bad == largest || i % 64 == 3) data.judged_rows[i] = std::copysign(bad, data.judged_rows[i]);
        }
        Pipeline pipeline;
        pipeline.keys = pipeline.values = test::spec("quantize", parameters);
        LayerCache cache(pipeline, data.shape, test::memory());
        cache.prefill(data.prefill());
        std::vector<float> out(data.judged_rows.size());
        const auto attend = [&] { cache.attend(data.judged(), out.data()); };
        if (bad == largest) {
          EXPECT_THROW(attend(), MethodError) << text_of("quantize", parameters) << ' ' << name_of(isa);
        } else {  // the cache does not ask the method
          EXPECT_THROW(attend(), InputError) << bad << ' ' << text_of("quantize", parameters) << ' ' << name_of(isa);
        }
      }
    }
  }
}

}  // namespace
}  // namespace kvlab
