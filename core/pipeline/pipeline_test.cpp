#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "core/base/error.hpp"
#include "core/pipeline/pipeline.hpp"

namespace kvlab {
namespace {

TokenBudget tokens(std::uint64_t count) { return {count, 1}; }
TokenBudget keep(double share) { return {std::nullopt, share}; }

TEST(Budget, CountsAsDefined) {
  EXPECT_EQ(tokens(256).of(1024), 256U);
  EXPECT_EQ(tokens(256).of(100), 100U);
  EXPECT_EQ(tokens(0).of(100), 0U);
  EXPECT_EQ(keep(0.5).of(1024), 512U);
  EXPECT_EQ(keep(0.5).of(5), 3U);      // floor(2.5 + 0.5)
  EXPECT_EQ(keep(0.001).of(100), 1U);  // never emptied by rounding
  EXPECT_EQ(keep(1).of(7), 7U);
  EXPECT_EQ(keep(0.5).of(0), 0U);
}

TEST(Pipeline, ChainsBudgetsAndRefusesTooSmallOnes) {
  Pipeline pipeline;
  pipeline.sinks = 4;
  pipeline.tail = 60;
  pipeline.select = {{{}, tokens(512)}, {{}, keep(0.7)}};
  EXPECT_EQ(pipeline.kept_of(4096), 358U);
  EXPECT_THROW(static_cast<void>(pipeline.kept_of(80)), InputError);  // 0.7 of 80 is 56, below 64
  EXPECT_THROW(static_cast<void>(pipeline.kept_of(40)), InputError);  // all 40 are sinks and tail, 28 would stay
  EXPECT_EQ(pipeline.kept_of(0), 0U);
}

TEST(Pipeline, HasCodecsOrALadder) {
  Pipeline pipeline;
  pipeline.ladder = {Rung{}};
  pipeline.check();
  pipeline.keys = MethodSpec{};
  EXPECT_THROW(pipeline.check(), InputError);
}

TEST(Select, KeepsSinksTailAndTheHighest) {
  const std::vector<float> scores{0, 5, 1, 9, 3, 9, 2, 0};
  std::vector<std::uint32_t> kept;
  select_highest(scores, 1, 1, 5, kept);
  EXPECT_EQ(kept, (std::vector<std::uint32_t>{0, 1, 3, 5, 7}));
  select_highest(scores, 0, 0, 1, kept);
  EXPECT_EQ(kept, (std::vector<std::uint32_t>{3}));  // of equal scores the earlier
  select_highest(scores, 0, 0, 0, kept);
  EXPECT_TRUE(kept.empty());
  select_highest(scores, 3, 3, 6, kept);
  EXPECT_EQ(kept, (std::vector<std::uint32_t>{0, 1, 2, 5, 6, 7}));
  select_highest(scores, 6, 6, 8, kept);
  EXPECT_EQ(kept.size(), 8U);
}

TEST(Select, AgreesWithSortingByScoreAndPosition) {
  std::mt19937 engine(3);
  for (int round = 0; round < 200; ++round) {
    const std::size_t count = 1 + engine() % 200;
    std::vector<float> scores(count);
    for (auto& score : scores) score = static_cast<float>(engine() % 8);  // many ties
    const std::size_t budget = engine() % (count + 1);
    std::vector<std::uint32_t> expected(count);
    std::iota(expected.begin(), expected.end(), 0U);
    std::stable_sort(expected.begin(), expected.end(), [&](auto a, auto b) { return scores[a] > scores[b]; });
    expected.resize(budget);
    std::sort(expected.begin(), expected.end());
    std::vector<std::uint32_t> kept;
    select_highest(scores, 0, 0, budget, kept);
    ASSERT_EQ(kept, expected);
  }
}

}  // namespace
}  // namespace kvlab
