// Codecs that change as a sequence grows.
#include <gtest/gtest.h>

#include "core/pipeline/ladder.hpp"
#include "tests/cache/growing.hpp"

namespace kvlab {
namespace {

using namespace test;

// Tokens of a role that each rung holds; the last entry is of raw ones.
std::vector<std::uint64_t> held_by_rung(const Pipeline& pipeline, const std::vector<Segment>& segments) {
  std::vector<std::uint64_t> tokens(pipeline.rungs().size() + 1);
  for (const auto& segment : segments) {
    tokens[segment.encoded ? segment.rung : tokens.size() - 1] += segment.tokens;
  }
  return tokens;
}

TEST(Ladder, NewBlocksAreOfTheRungThatTheSequenceIsOn) {
  Pipeline pipeline;
  pipeline.sinks = 4;
  pipeline.tail = 28;
  pipeline.ladder = {rung(0, kivi(0, 0, "8")), rung(320, kivi(0, 0, "4")), rung(1000, kivi(0, 0, "3"))};
  Grower grown(pipeline);
  for (int i = 0; i < 1184; ++i) grown.append(1);
  // Keys are cut every 32 tokens from 4 on: a block leaves the tail when its end + 28 tokens are there, and the last of
  // the first rung does at 320. Values are cut every 128: at 160, 288, 416...
  EXPECT_EQ(held_by_rung(pipeline, grown.head().keys.segments), (std::vector<std::uint64_t>{288, 672, 192, 4 + 28}));
  EXPECT_EQ(held_by_rung(pipeline, grown.head().values.segments), (std::vector<std::uint64_t>{256, 640, 256, 4 + 28}));
  grown.expect_holds();
  // The bits change at a threshold, the blocks of before stay.
  EXPECT_EQ(grown.head().keys.segments[9].rung, 0);
  EXPECT_EQ(grown.head().keys.segments[10].rung, 1);
  Grower at_once(pipeline);
  at_once.prefill(1184);
  EXPECT_EQ(held_by_rung(pipeline, at_once.head().keys.segments), held_by_rung(pipeline, grown.head().keys.segments));
  EXPECT_EQ(held_by_rung(pipeline, at_once.head().values.segments),
            held_by_rung(pipeline, grown.head().values.segments));
}

TEST(Ladder, OlderBlocksAreRecodedAFewAtATime) {
  Pipeline pipeline;
  pipeline.ladder = {rung(0, kivi(0, 0, "8")), rung(2000, kivi(0, 0, "3"), true)};
  for (const bool async : {false, true}) {
    pipeline.async = async;
    Grower grown(pipeline);
    for (int i = 0; i < 2000; ++i) grown.append(1);
    EXPECT_EQ(held_by_rung(pipeline, grown.head().keys.segments)[1], 0U);
    grown.cache().flush();
    const std::uint64_t before = grown.cache().bytes().total();
    grown.append(1);
    EXPECT_TRUE(grown.head().stale);
    if (!async) {
      EXPECT_EQ(held_by_rung(pipeline, grown.head().keys.segments)[1], 32U);  // a block of it each append
      EXPECT_EQ(held_by_rung(pipeline, grown.head().values.segments)[1], 128U);
    }
    grown.append(1);
    grown.expect_holds();
    for (int i = 0; i < 70; ++i) grown.append(1);
    grown.cache().flush();
    EXPECT_FALSE(grown.head().stale);
    EXPECT_EQ(held_by_rung(pipeline, grown.head().keys.segments)[0], 0U);
    EXPECT_EQ(held_by_rung(pipeline, grown.head().values.segments)[0], 0U);
    EXPECT_LT(grown.cache().bytes().total(), before * 6 / 10);
    EXPECT_EQ(grown.cache().bytes().total(), grown.cache().requested_bytes());
    grown.expect_holds();
    Grower at_once(pipeline);
    at_once.prefill(2072);
    EXPECT_EQ(held_by_rung(pipeline, at_once.head().keys.segments)[0], 0U);
  }
}

// The mildest rung that fits: never more than the budget, and on the rung before it there would have been more.
TEST(Ladder, ABudgetOfBytesChoosesTheRung) {
  constexpr std::uint64_t budget = 40000;
  Pipeline pipeline;
  pipeline.sinks = 4;
  pipeline.tail = 60;
  pipeline.ladder = {rung(0, kivi(0, 0, "8")), rung(0, kivi(0, 0, "5")), rung(0, kivi(0, 0, "2"))};
  pipeline.bytes_per_sequence = budget;
  for (const std::uint64_t tokens : {0U, 100U, 300U, 450U, 500U, 700U, 800U, 1100U}) {
    Grower cache(pipeline);
    cache.prefill(tokens);
    const std::uint64_t bytes = cache.cache().bytes().total();
    EXPECT_LE(bytes, budget) << tokens;
    const auto tokens_held = held_by_rung(pipeline, cache.head().keys.segments);
    for (std::size_t i = 1; i < 3; ++i) {
      if (tokens_held[i] == 0) continue;
      Pipeline milder = pipeline;
      milder.bytes_per_sequence = 0;
      milder.ladder = {pipeline.ladder[i - 1]};
      Grower other(milder);
      other.prefill(tokens);
      EXPECT_GT(other.cache().bytes().total(), budget) << tokens << " tokens on rung " << i;
    }
  }
  for (const bool async : {false, true}) {
    pipeline.async = async;
    Grower grown(pipeline);
    std::vector<bool> seen(3);
    std::uint64_t count = 0;
    try {
      for (; count < 10000; ++count) {
        grown.append(1);
        const auto now = held_by_rung(pipeline, grown.head().keys.segments);
        for (std::size_t i = 0; i < 3; ++i) seen[i] = seen[i] || now[i] > 0;
        ASSERT_LE(grown.cache().layer(0).bytes_of(0), budget) << count;
      }
    } catch (const BudgetError& error) {
      EXPECT_NE(std::string(error.what()).find("bytes_per_sequence is 40000"), std::string::npos) << error.what();
    }
    EXPECT_EQ(seen, (std::vector<bool>{true, true, true}));
    EXPECT_GT(count, 900U);
    EXPECT_LT(count, 10000U);
    EXPECT_EQ(grown.cache().layer(0).tokens(0), count);
    grown.expect_holds();
    EXPECT_THROW(grown.append(1), BudgetError);
    EXPECT_EQ(grown.cache().layer(0).tokens(0), count);
    grown.cache().clear(0);
    grown.append(64);
    EXPECT_EQ(held_by_rung(pipeline, grown.head().keys.segments)[3], 64U);
  }
  Grower cache(pipeline);
  EXPECT_THROW(cache.prefill(5000), BudgetError);
}

// A long block that would leave its tail two rungs later is none: the rung between has blocks of its own, which fit.
TEST(Ladder, BlocksAreNeverLongerThanTheirCodecs) {
  LayerShape shape = test::shape(1, 1, 1, 16, Dtype::bf16);
  Pipeline pipeline;
  Rung long_blocks = rung(0, Pipeline{});
  long_blocks.keys = spec("low_rank", {{"rank", "4"}, {"block", "256"}});
  Rung short_blocks = rung(40, Pipeline{});
  short_blocks.keys = kivi(0, 0).keys;  // of 32
  Rung shorter = rung(200, Pipeline{});
  shorter.keys = spec("low_rank", {{"rank", "4"}, {"block", "16"}});
  pipeline.ladder = {long_blocks, short_blocks, shorter};
  CacheManager cache(pipeline, std::span(&shape, 1), test::backend(1));
  for (const std::uint64_t tokens : {41U, 150U, 199U, 201U, 300U}) {
    const Data data(shape, tokens);
    cache.prefill(0, data.prefill());
    const Role& keys = cache.layer(0).layer().keys;
    for (const auto& segment : cache.layer(0).head(0, 0).keys.segments) {
      if (!segment.encoded) continue;
      EXPECT_LE(segment.tokens, keys.block_tokens[segment.rung]) << tokens;
    }
  }
}

// A layer has its share by what a token takes in it.
TEST(Ladder, LayersShareASequencesBytes) {
  Pipeline pipeline;
  pipeline.ladder = {rung(0, kivi(0, 0, "8")), rung(0, kivi(0, 0, "2"))};
  pipeline.bytes_per_sequence = 60000;
  std::vector<LayerShape> layers{test::shape(1, 1, 1, 16), test::shape(1, 3, 3, 16)};
  CacheManager cache(pipeline, layers, test::backend());
  for (std::size_t i = 0; i < 2; ++i) {
    const Data data(layers[i], 600);
    cache.prefill(i, data.prefill());  // 600 tokens x 4 heads x ~ 36 B: above 60,000 on the first rung
  }
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(cache.layer(i).head(0, 0).keys.segments.front().rung, 1) << i;
  EXPECT_LE(cache.bytes().total(), 60000U);
}

TEST(Ladder, WhatIsNoLadderIsRefused) {
  const LayerShape shape = test::shape(1, 1, 1, 16);
  Pipeline late;
  late.ladder = {rung(5, kivi(0, 0))};
  EXPECT_THROW(LayerCache(late, shape, test::memory()), InputError);
  Pipeline twice;
  twice.ladder = {rung(0, kivi(0, 0)), rung(0, kivi(0, 0))};
  EXPECT_THROW(LayerCache(twice, shape, test::memory()), InputError);
  Pipeline half;
  half.ladder = {rung(0, kivi(0, 0)), rung(9, kivi(0, 0))};
  half.ladder[1].keys.reset();
  EXPECT_THROW(LayerCache(half, shape, test::memory()), InputError);
  Pipeline many;
  for (std::uint64_t i = 0; i <= most_rungs; ++i) many.ladder.push_back(rung(i, kivi(0, 0)));
  EXPECT_THROW(LayerCache(many, shape, test::memory()), InputError);
  many.ladder.pop_back();
  const LayerCache fine(many, shape, test::memory());
}

TEST(Ladder, ARuleNamesTheRungOfALength) {
  const RungRule rule{{0, 100, 250}, 0};
  for (const auto& [length, rung] : {std::pair{0, 0}, {100, 0}, {101, 1}, {250, 1}, {251, 2}, {1 << 30, 2}}) {
    EXPECT_EQ(rule.at(static_cast<std::uint64_t>(length)), rung) << length;
  }
  const RungRule later{{0, 100, 250}, 1};
  EXPECT_EQ(later.at(5), 1);
  EXPECT_EQ(later.at(300), 2);
}

}  // namespace
}  // namespace kvlab
