// The cache against long-hand attention and counts by hand, at its corners.
#include "core/cache/layer_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

using test::Data;
using test::shape;
using test::spec;

std::vector<std::uint32_t> positions_of(const Head& head) {
  std::vector<std::uint32_t> positions;
  head.positions.write_out(positions);
  return positions;
}

// What the cache decodes to, [batch, kv_head, token, channel] f32, and which tokens it kept.
struct Decoded {
  std::vector<float> keys;
  std::vector<float> values;
  std::vector<std::vector<std::uint32_t>> kept;
};

Decoded decode(const LayerCache& cache, const Data& data) {
  Decoded decoded{std::vector<float>(data.keys.size()), std::vector<float>(data.values.size()), {}};
  const auto fill = [&](const Role& role, const Head& head, const std::vector<Segment>& segments, std::uint64_t index,
                        std::vector<float>& out) {
    const auto positions = positions_of(head);
    for (const auto& segment : segments) {
      std::vector<float> rows(segment.tokens * role.channels);
      cache.backend().read(role, static_cast<std::uint32_t>(index % data.shape.kv_heads), segment,
                           head.positions.view(), 0, segment.tokens, rows.data());
      for (std::uint64_t t = 0; t < segment.tokens; ++t) {
        std::copy_n(rows.data() + t * role.channels, role.channels,
                    out.data() + (index * data.tokens + positions[segment.first + t]) * role.channels);
      }
    }
  };
  for (std::uint64_t index = 0; index < data.shape.heads(); ++index) {
    const Head& head = cache.head(index / data.shape.kv_heads, static_cast<std::uint32_t>(index % data.shape.kv_heads));
    decoded.kept.push_back(positions_of(head));
    fill(cache.layer().keys, head, head.keys.segments, index, decoded.keys);
    fill(cache.layer().values, head, head.values.segments, index, decoded.values);
  }
  return decoded;
}

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

// All that must hold of any pipeline on any data.
void check(const Pipeline& pipeline, const Data& data) {
  LayerCache cache(pipeline, data.shape, test::memory());
  cache.prefill(data.prefill());
  const Bytes bytes = cache.bytes();
  EXPECT_EQ(bytes.total(), cache.requested_bytes());
  EXPECT_GE(cache.reserved_bytes(), cache.requested_bytes());

  const Decoded decoded = decode(cache, data);
  const std::uint64_t kept = pipeline.kept_of(data.tokens);
  for (const auto& head : decoded.kept) ASSERT_EQ(head.size(), kept);

  const auto expected = test::attention(data, decoded.keys, decoded.values, decoded.kept);
  EXPECT_LT(test::relative(attend(cache, data), expected), test::attention_tolerance);

  std::vector<std::byte> keys(data.stored_keys.size(), std::byte{1});
  std::vector<std::byte> values(data.stored_values.size(), std::byte{1});
  cache.decompress(keys.data(), values.data());
  std::vector<std::byte> rounded(keys.size());
  from_f32(data.shape.dtype, decoded.keys.data(), rounded.data(), decoded.keys.size());
  EXPECT_EQ(keys, rounded);
  rounded.resize(values.size());
  from_f32(data.shape.dtype, decoded.values.data(), rounded.data(), decoded.values.size());
  EXPECT_EQ(values, rounded);

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
