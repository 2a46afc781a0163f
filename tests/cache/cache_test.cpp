// The cache against long-hand attention and counts by hand, at its corners.
#include "core/cache/layer_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.hpp"
#include "tests/support/attention.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

using test::Data;
using test::shape;
using test::spec;

std::vector<float> attend(LayerCache& cache, const Data& data) {
  std::vector<float> out(
      data.shape.batch * data.shape.query_heads * data.judged_positions.size() * data.shape.head_dim_values, -1.0F);
  cache.attend(data.judged(), out.data());
  return out;
}

std::uint64_t state_of(const LayerCache& cache) {
  std::uint64_t bytes = 0;
  for (const Role* role : {&cache.layer().keys, &cache.layer().values})
    for (const auto& codec : role->codecs) bytes += codec.traits().state_bytes;
  return bytes;
}

std::vector<std::uint32_t> all_of(const LayerCache& cache) {
  std::vector<std::uint32_t> all(cache.sequences());
  std::iota(all.begin(), all.end(), 0U);
  return all;
}

// What decompress() is to write of one role: [batch, kv_head, token, channel], 0 where a token was dropped.
std::vector<std::byte> expanded(const LayerCache& cache, std::uint32_t role, std::uint64_t kept) {
  const LayerShape& of = cache.shape();
  const std::uint64_t channels = of.head_dim(role);
  std::vector<float> rows;
  for (const std::uint32_t sequence : all_of(cache)) {
    for (std::uint32_t head = 0; head < of.kv_heads; ++head) {
      const test::Held held = test::held(cache, sequence, head, role);
      EXPECT_EQ(held.positions.size(), kept);
      const std::size_t first = rows.size();
      rows.resize(first + cache.tokens(sequence) * channels);
      for (std::size_t i = 0; i < held.positions.size(); ++i) {
        std::copy_n(held.rows.data() + i * channels, channels, rows.data() + first + held.positions[i] * channels);
      }
    }
  }
  std::vector<std::byte> rounded(rows.size() * size_of(of.dtype));
  from_f32(of.dtype, rows.data(), rounded.data(), rows.size());
  return rounded;
}

// All that must hold of any pipeline on any data.
void check(const Pipeline& pipeline, const Data& data) {
  LayerCache cache(pipeline, data.shape, test::memory());
  cache.prefill(data.prefill());
  const Bytes bytes = cache.bytes();
  EXPECT_EQ(bytes.total(), cache.requested_bytes());
  EXPECT_GE(cache.reserved_bytes(), cache.requested_bytes());

  const auto expected = test::attention(cache, all_of(cache), data.judged());
  EXPECT_LT(test::relative(attend(cache, data), expected), test::attention_tolerance);

  std::vector<std::byte> keys(data.stored_keys.size(), std::byte{1});
  std::vector<std::byte> values(data.stored_values.size(), std::byte{1});
  cache.decompress(keys.data(), values.data());
  const std::uint64_t kept = pipeline.kept_of(data.tokens);
  EXPECT_EQ(keys, expanded(cache, KVLAB_ROLE_KEYS, kept));
  EXPECT_EQ(values, expanded(cache, KVLAB_ROLE_VALUES, kept));

  cache.prefill(data.prefill());  // again: the same cache
  EXPECT_EQ(cache.bytes().total(), bytes.total());
  EXPECT_LT(test::relative(attend(cache, data), expected), test::attention_tolerance);
}

Pipeline raw() { return {}; }

Pipeline quantized(const std::string& scales, const std::string& bits, std::uint64_t sinks, std::uint64_t tail) {
  Pipeline pipeline;
  pipeline.sinks = sinks;
  pipeline.tail = tail;
  pipeline.keys = spec("quantize", {{"bits", bits}, {"scales", scales}, {"symmetric", "false"}, {"group", "32"}});
  pipeline.values = spec("quantize", {{"bits", "8"}});
  return pipeline;
}

Pipeline hybrid() {
  Pipeline pipeline = quantized("per_channel", "4", 2, 3);
  pipeline.select = {{spec("attention_score"), {std::nullopt, 0.6}}, {spec("random"), {std::nullopt, 0.9}}};
  return pipeline;
}

Pipeline mixed() {  // keys and values are cut differently, and one attends on its bytes
  Pipeline pipeline;
  pipeline.sinks = 1;
  pipeline.keys = spec("quantize", {{"scales", "per_channel"}, {"group", "7"}});
  pipeline.values = spec("low_rank", {{"rank", "4"}, {"block", "50"}});
  return pipeline;
}

TEST(Cache, HoldsAtEveryShape) {
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    for (const std::uint64_t tokens : {0U, 1U, 2U, 31U, 64U, 65U, 129U, 257U}) {
      for (const std::uint32_t head_dim : {1U, 3U, 64U, 80U}) {
        const Data data(shape(2, 3, 6, head_dim, dtype), tokens, 3);
        SCOPED_TRACE(std::string(name_of(dtype)) + ", tokens " + std::to_string(tokens) + ", head_dim " +
                     std::to_string(head_dim));
        check(raw(), data);
        check(quantized("per_token", "4", 0, 0), data);
        check(quantized("per_channel", "3", 4, 5), data);
        if (tokens > 30) check(hybrid(), data);
        check(mixed(), data);
      }
    }
  }
}

// Keys and values may have channels of their own, as in multi-head latent attention.
TEST(Cache, HoldsWhereKeysAndValuesDifferInHeadDim) {
  for (const auto& [keys, values] : std::vector<std::pair<std::uint32_t, std::uint32_t>>{{24, 16}, {16, 80}, {1, 3}}) {
    LayerShape uneven = shape(2, 2, 4, keys, Dtype::bf16);
    uneven.head_dim_values = values;
    for (const std::uint64_t tokens : {1U, 65U, 200U}) {
      SCOPED_TRACE(std::to_string(keys) + " and " + std::to_string(values) + ", tokens " + std::to_string(tokens));
      const Data data(uneven, tokens, 3);
      check(raw(), data);
      check(quantized("per_token", "4", 0, 0), data);
      check(quantized("per_channel", "3", 4, 5), data);
      if (tokens > 30) check(hybrid(), data);
      check(mixed(), data);
    }
  }
}

// A caller's strides: the same cache, to the byte, as of contiguous rows.
TEST(Cache, HoldsTheSameWhateverTheStrides) {
  const Data data(shape(2, 3, 6, 16, Dtype::bf16), 150, 3);
  for (const Pipeline& pipeline : {raw(), quantized("per_channel", "4", 2, 3), hybrid(), mixed()}) {
    LayerCache expected(pipeline, data.shape, test::memory());
    expected.prefill(data.prefill());
    const test::Turned keys(data.stored(KVLAB_ROLE_KEYS), 5);
    const test::Turned values(data.stored(KVLAB_ROLE_VALUES), 0);
    LayerCache turned(pipeline, data.shape, test::memory());
    turned.prefill({keys.tensor(), values.tensor(), data.observed()});
    EXPECT_EQ(turned.bytes().total(), expected.bytes().total());
    EXPECT_EQ(attend(turned, data), attend(expected, data));
    for (const std::uint32_t sequence : all_of(turned)) {
      EXPECT_EQ(test::all_bytes(turned, sequence), test::all_bytes(expected, sequence));
    }
  }
}

TEST(Cache, HoldsAtItsLimits) {
  check(quantized("per_token", "8", 1, 1), Data(shape(512, 1, 1, 8, Dtype::bf16), 9, 1));
  check(quantized("per_token", "8", 1, 1), Data(shape(1, 1, 64, 16, Dtype::bf16), 40, 2));  // group of 64
  check(quantized("per_channel", "2", 0, 0), Data(shape(1, 2, 2, 512, Dtype::f16), 130, 1));
  check(quantized("per_token", "5", 0, 0), Data(shape(1, 97, 97, 5, Dtype::f32), 17, 1));
  EXPECT_THROW(LayerCache(raw(), shape(1, 1, 1, 513), test::memory()), InputError);
  EXPECT_THROW(LayerCache(raw(), shape(1, 0, 1, 64), test::memory()), InputError);
  EXPECT_THROW(LayerCache(raw(), shape(1, 2, 3, 64), test::memory()), InputError);
  EXPECT_THROW(LayerCache(raw(), shape(0, 1, 1, 64), test::memory()), InputError);
}

TEST(Cache, AWindowOfTheLayerHidesOldTokens) {
  for (const std::uint64_t window : {1U, 5U, 64U, 70U, 1000U}) {
    LayerShape windowed = shape(1, 2, 4, 16);
    windowed.window = window;
    check(quantized("per_token", "8", 3, 2), Data(windowed, 90, 4));
    check(hybrid(), Data(windowed, 90, 4));
  }
}

TEST(Cache, SinksAndTailBeyondTheTokensChangeNothing) {
  const Data data(shape(1, 1, 2, 8), 10, 2);
  const Pipeline pipeline = quantized("per_token", "4", 7, 9);
  check(pipeline, data);
  LayerCache cache(pipeline, data.shape, test::memory());
  cache.prefill(data.prefill());
  EXPECT_EQ(cache.bytes().uncompressed, 2U * 10 * 8 * 4);  // all raw
}

TEST(Cache, KeepingNothingGivesZeros) {
  const Data data(shape(1, 2, 2, 8), 50, 2);
  Pipeline pipeline = quantized("per_token", "4", 0, 0);
  pipeline.select = {{spec("sliding_window"), {0, 1}}};
  LayerCache cache(pipeline, data.shape, test::memory());
  cache.prefill(data.prefill());
  EXPECT_EQ(cache.bytes().total(), 0U);
  for (const float x : attend(cache, data)) EXPECT_EQ(x, 0);
}

TEST(Cache, CountsBytesAsByHand) {
  const Data data(shape(1, 1, 1, 128, Dtype::bf16), 100, 1);
  Pipeline pipeline;
  pipeline.sinks = 4;
  pipeline.tail = 16;
  pipeline.select = {{spec("sliding_window"), {60, 1}}};
  pipeline.keys = spec("quantize");
  pipeline.values = spec("quantize", {{"bits", "4"}, {"symmetric", "false"}});
  LayerCache cache(pipeline, data.shape, test::memory());
  cache.prefill(data.prefill());
  const Bytes bytes = cache.bytes();
  EXPECT_EQ(bytes.uncompressed, 20U * 256 * 2);
  EXPECT_EQ(bytes.payload, 40U * (128 + 64));
  EXPECT_EQ(bytes.scales, 40U * (2 + 4));
  EXPECT_EQ(bytes.indices, 2U * 8);  // sinks, and the window with the tail
  EXPECT_EQ(bytes.bases, 0U);
  EXPECT_EQ(state_of(cache), 0U);
}

TEST(Cache, TilesAndAttentionOnTheBytesAgree) {
  const Data data(shape(1, 2, 8, 96, Dtype::bf16), 300, 3);
  for (const char* scales : {"per_token", "per_channel"}) {
    Pipeline fused = quantized(scales, "4", 2, 9);
    Method tiles = *fused.keys->method;
    tiles.attend_keys = nullptr;
    tiles.attend_values = nullptr;
    Pipeline tiled = fused;
    tiled.keys->method = &tiles;
    tiled.values->method = &tiles;
    LayerCache a(fused, data.shape, test::memory());
    LayerCache b(tiled, data.shape, test::memory());
    a.prefill(data.prefill());
    b.prefill(data.prefill());
    const auto expected = attend(b, data);
    EXPECT_LT(test::relative(attend(a, data), expected), test::attention_tolerance) << scales;
  }
}

TEST(Cache, DoesNotDependOnThreads) {
  const Data data(shape(3, 2, 4, 64, Dtype::bf16), 200, 2);
  std::vector<std::vector<float>> outputs;
  for (const std::size_t threads : {1U, 4U}) {
    LayerCache cache(hybrid(), data.shape, test::memory(threads));
    cache.prefill(data.prefill());
    outputs.push_back(attend(cache, data));
  }
  EXPECT_EQ(outputs[0], outputs[1]);
}

TEST(Cache, LargeLogitsDoNotOverflow) {
  Data data(shape(1, 1, 1, 4), 200, 1);
  std::vector<float> keys = data.keys;
  for (auto& key : keys) key *= 1000;
  data.set_keys(keys);
  LayerCache cache(raw(), data.shape, test::memory());
  cache.prefill(data.prefill());
  for (const float x : attend(cache, data)) EXPECT_TRUE(std::isfinite(x));
}

}  // namespace
}  // namespace kvlab
