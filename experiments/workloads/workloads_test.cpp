// What generators draw, and metrics of it: the known answers.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/base/error.hpp"
#include "experiments/measure/sampler.hpp"
#include "experiments/metrics/quality.hpp"
#include "experiments/metrics/reference.hpp"
#include "experiments/workloads/workload.hpp"
#include "tests/support/attention.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

struct Loaded {
  explicit Loaded(const std::string& yaml, std::uint64_t seed = 1, std::size_t threads = 2)
      : backend(test::backend(threads)) {
    source = resolve_workload(parse_yaml_value(yaml, "here"), "the workload", "");
    workload = source->load(seed, backend);
    check_finite(workload, backend);
  }
  LayerQuality judge(const Pipeline& pipeline, std::size_t layer = 0) {
    const WorkloadLayer& data = workload.layers[layer];
    LayerCache cache(pipeline, data.shape, test::memory());
    cache.prefill(data.prefill());
    return kvlab::judge(data, cache, reference_outputs(data, backend), cache_outputs(data, cache));
  }
  Backend& backend;
  std::unique_ptr<WorkloadSource> source;
  Workload workload;
};

Pipeline coded(const std::vector<std::pair<std::string, std::string>>& parameters) {
  Pipeline pipeline;
  pipeline.keys = test::spec("quantize", parameters);
  pipeline.values = pipeline.keys;
  return pipeline;
}

Pipeline selecting(const std::string& method, double keep,
                   const std::vector<std::pair<std::string, std::string>>& parameters = {}) {
  Pipeline pipeline;
  pipeline.select = {{test::spec(method, parameters), {std::nullopt, keep}}};
  return pipeline;
}

std::vector<std::byte> keys_of(const Loaded& loaded) {
  const auto shape = loaded.source->shape();
  const auto* base = static_cast<const std::byte*>(loaded.workload.layers[0].keys.base);
  return {base, base + shape.raw_bytes() / 2 / shape.layers};
}

TEST(Generators, DrawTheSameWhateverTheThreads) {
  for (const char* name : {"gaussian", "spectrum", "outlier_channels", "needle"}) {
    const std::string yaml =
        "{synthetic: " + std::string(name) + ", batch: 2, kv_heads: 2, query_heads: 4, tokens: 70, head_dim: 16}";
    const auto once = keys_of(Loaded(yaml, 5, 1));
    EXPECT_EQ(once, keys_of(Loaded(yaml, 5, 4))) << name;
    EXPECT_NE(once, keys_of(Loaded(yaml, 6, 1))) << name;
  }
}

TEST(Generators, QueriesLieOnBothSidesOfThePrefill) {
  Loaded loaded("{synthetic: gaussian, kv_heads: 1, query_heads: 2, tokens: 100, prefill: 60, head_dim: 8}");
  const WorkloadLayer& layer = loaded.workload.layers[0];
  EXPECT_EQ(layer.prefilled, 60U);
  ASSERT_EQ(layer.judged.count, 16U);
  EXPECT_EQ(layer.observed.positions.back(), 59U);
  EXPECT_EQ(layer.judged.positions.front(), 60U);
}

TEST(Generators, GaussianErrorsAreThoseOfTheQuantizer) {
  Loaded loaded(
      "{synthetic: gaussian, batch: 2, kv_heads: 8, query_heads: 8, tokens: 1024, head_dim: 128, dtype: f32}");
  const auto quality = loaded.judge(coded({{"bits", "4"}, {"symmetric", "false"}, {"group", "32"}}));
  EXPECT_NEAR(quality.key_error, std::sqrt(6.12e-3), 0.005 * std::sqrt(6.12e-3));
  EXPECT_NEAR(quality.value_error, std::sqrt(6.12e-3), 0.005 * std::sqrt(6.12e-3));
}

TEST(Generators, SpectrumObeysEckartYoung) {
  Loaded loaded("{synthetic: spectrum, kv_heads: 1, query_heads: 1, tokens: 1024, head_dim: 128, dtype: f32}");
  Pipeline pipeline;
  pipeline.keys = test::spec("low_rank", {{"rank", "16"}, {"factor_dtype", "f32"}});
  EXPECT_NEAR(loaded.judge(pipeline).key_error, .1796, .1796 * 1e-3);
}

TEST(Generators, OutlierChannelsWantPerChannelScales) {
  Loaded loaded("{synthetic: outlier_channels, kv_heads: 2, query_heads: 4, tokens: 512, head_dim: 64}");
  const auto per_token = loaded.judge(coded({{"bits", "4"}, {"symmetric", "false"}}));
  const auto per_channel =
      loaded.judge(coded({{"bits", "4"}, {"symmetric", "false"}, {"scales", "per_channel"}, {"group", "64"}}));
  EXPECT_LT(per_channel.key_error, 0.6 * per_token.key_error);
  // The sinks draw attention: without them much is lost, with them little of a window's error is left.
  Pipeline window = selecting("sliding_window", 0.25);
  const double without = loaded.judge(window).output_error;
  window.sinks = 4;
  EXPECT_LT(loaded.judge(window).output_error, 0.7 * without);
}

TEST(Generators, ANeedleIsKeptOrNot) {
  Loaded loaded("{synthetic: needle, kv_heads: 2, query_heads: 4, tokens: 1024, head_dim: 128}");
  EXPECT_LT(loaded.judge({}).output_error, 1e-5);
  int kept = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    Loaded seeded("{synthetic: needle, kv_heads: 1, query_heads: 1, tokens: 256, head_dim: 128}", seed);
    const double error = seeded.judge(selecting("sliding_window", 0.5)).output_error;
    EXPECT_TRUE(error < 0.1 || error > 0.8) << error;
    kept += error < 0.1 ? 1 : 0;
  }
  EXPECT_GT(kept, 0);
  EXPECT_LT(kept, 8);
}

TEST(Metrics, ReferenceAgreesWithLongHand) {
  LayerShape shape = test::shape(2, 2, 4, 12, Dtype::bf16);
  for (const std::uint64_t window : {0U, 9U, 1U}) {
    shape.window = window;
    const test::Data data(shape, 40, 3);
    Backend& backend = test::backend(2);
    const test::Turned keys(data.stored(KVLAB_ROLE_KEYS), 3);
    const KvTensor values = data.stored(KVLAB_ROLE_VALUES);
    const WorkloadLayer layer{shape, keys.tensor(), values, data.tokens, data.observed(), data.judged()};
    EXPECT_LT(test::relative(reference_outputs(layer, backend),
                             test::attention(shape, data.stored(KVLAB_ROLE_KEYS), values, data.judged())),
              1e-5);
  }
}

TEST(Metrics, QuantilesInterpolate) {
  EXPECT_EQ(quantile({1, 2, 3, 4}, 0.5), 2.5);
  EXPECT_EQ(quantile({1, 2, 3, 4, 5}, 0.95), 4.8);
  EXPECT_EQ(quantile({7}, 0.25), 7);
  EXPECT_TRUE(std::isnan(quantile({}, 0.5)));
}

TEST(Metrics, EdgesAreAsDefined) {
  Loaded loaded("{synthetic: gaussian, kv_heads: 1, query_heads: 1, tokens: 50, head_dim: 8}");
  const auto raw = loaded.judge({});
  EXPECT_EQ(raw.key_error, 0);
  EXPECT_NEAR(raw.output_cosine, 1, 1e-6);
  Pipeline none;
  none.select = {{test::spec("random"), {0, 1}}};
  const auto nothing = loaded.judge(none);
  EXPECT_TRUE(std::isnan(nothing.key_error));
  EXPECT_EQ(nothing.output_error, 1);
  EXPECT_EQ(nothing.output_cosine, 0);
  loaded.workload.layers[0].judged = {};
  EXPECT_TRUE(std::isnan(loaded.judge({}).output_error));
}

TEST(Workloads, NotFiniteIsRefused) {
  const LayerShape shape = test::shape(1, 2, 2, 4, Dtype::f16);
  test::Data data(shape, 10, 1);
  std::vector<float> values = data.values;
  values[45] = INFINITY;
  data.set_values(values);
  Workload workload;
  const test::Turned turned(data.stored(KVLAB_ROLE_VALUES), 2);  // what is between rows is not looked at
  workload.layers.push_back(
      {shape, data.stored(KVLAB_ROLE_KEYS), turned.tensor(), data.tokens, data.observed(), data.judged()});
  Backend& backend = test::backend(2);
  try {
    check_finite(workload, backend);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "the workload's values hold NaN or infinity in layer 0, sequence 0, KV head 1");
  }
}

// A worker reads what the runner had checked: the same file, or one of the same content.
TEST(Workloads, ATraceThatChangesDuringARunIsRefused) {
  const test::Folder folder;
  setenv("XDG_CACHE_HOME", folder.path().c_str(), 1);
  const auto path = folder.path() / "t.h5";
  std::filesystem::copy_file(std::filesystem::path(KVLAB_SOURCE_DIR) / "configs/traces/smollm2-135m.h5", path);
  const auto planned = resolve_workload(parse_yaml_value("{trace: " + path.string() + "}", "test"), "w", "");
  const auto in_worker = [&] { return resolve_workload(to_node(planned->portable(), "w"), "w", "", true); };
  EXPECT_EQ(in_worker()->shape().raw_bytes(), planned->shape().raw_bytes());
  EXPECT_EQ(in_worker()->effective(), planned->effective());
  std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_EQ(in_worker()->shape().tokens, 1024U);
  std::ofstream(path, std::ios::app) << "more";
  EXPECT_THROW(in_worker(), InputError);
  unsetenv("XDG_CACHE_HOME");
}

TEST(Sampler, StopsWhenThereIsEnough) {
  int calls = 0;
  Measure measure;
  measure.min_samples = 5;
  measure.max_seconds = 0.2;
  const auto samples = sample(measure, test::backend(1), [&] { ++calls; });
  EXPECT_GE(samples.size(), 5U);
  EXPECT_EQ(static_cast<std::size_t>(calls), samples.size() + 1);  // one warm-up
}

}  // namespace
}  // namespace kvlab
