// Which tokens stay while others come, by what a selector's scores depend on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/cache/growing.hpp"

namespace kvlab {
namespace {

using namespace test;

// KeyDiff written out over f32 rows: minus the cosine to the mean of the normalised keys.
std::vector<double> keydiff_scores(const std::vector<std::vector<float>>& keys) {
  const std::size_t channels = keys.front().size();
  std::vector<std::vector<double>> normalised;
  std::vector<double> mean(channels);
  for (const auto& key : keys) {
    const double norm = std::sqrt(std::inner_product(key.begin(), key.end(), key.begin(), 0.0));
    normalised.emplace_back(key.begin(), key.end());
    for (std::size_t c = 0; c < channels; ++c) mean[c] += (normalised.back()[c] /= norm);
  }
  const double norm = std::sqrt(std::inner_product(mean.begin(), mean.end(), mean.begin(), 0.0));
  std::vector<double> scores;
  for (const auto& key : normalised) {
    scores.push_back(-std::inner_product(key.begin(), key.end(), mean.begin(), 0.0) / norm);
  }
  return scores;
}

// The positions that stay of these, in order: sinks, tail, and the best `budget` in all.
std::vector<std::uint32_t> chosen(const std::vector<std::uint32_t>& present, const std::vector<double>& scores,
                                  std::size_t sinks, std::size_t tail, std::size_t budget) {
  std::vector<std::size_t> middle(present.size() - sinks - tail);
  std::iota(middle.begin(), middle.end(), sinks);
  std::stable_sort(middle.begin(), middle.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  middle.resize(budget - sinks - tail);
  std::vector<std::uint32_t> stay(present.begin(), present.begin() + static_cast<std::ptrdiff_t>(sinks));
  for (const std::size_t i : middle) stay.push_back(present[i]);
  stay.insert(stay.end(), present.end() - static_cast<std::ptrdiff_t>(tail), present.end());
  std::sort(stay.begin(), stay.end());
  return stay;
}

// One token at a time, against the same written out: at each eviction all present tokens are scored together.
TEST(Scope, ScoresOfAllPresentTokensAreTakenAnewAtEachEviction) {
  constexpr std::size_t sinks = 2;
  constexpr std::size_t tail = 5;
  constexpr std::size_t budget = 60;
  constexpr std::size_t step = 128;  // what a raw cache evicts at a time
  Pipeline pipeline;
  pipeline.sinks = sinks;
  pipeline.tail = tail;
  pipeline.select = {{of_tests("keydiff"), {budget, 1}}};
  Grower grown(pipeline, test::shape(1, 1, 1, 16, Dtype::f32), {.decodes = true}, 3);
  std::vector<std::uint32_t> expected;
  int evictions = 0;
  for (std::uint32_t token = 0; token < 900; ++token) {
    grown.append();
    expected.push_back(token);
    if (expected.size() >= budget + step) {
      std::vector<std::vector<float>> keys;
      for (const std::uint32_t p : expected) {
        const auto row = grown.given().keys[0].begin() + p * 16;
        keys.emplace_back(row, row + 16);
      }
      expected = chosen(expected, keydiff_scores(keys), sinks, tail, budget);
      ++evictions;
    }
    ASSERT_EQ(kept(grown.head()), expected) << token;
  }
  EXPECT_GE(evictions, 5);
  EXPECT_EQ(grown.head().scores[0].size(), 0U);  // none is kept, none is counted
}

// Where older tokens are in blocks, the scores are of their decoded rows: those of a cache that evicts nothing.
TEST(Scope, RowsOfBlocksAreReadAsTheyDecode) {
  const Pipeline all = kivi(1, 10, "2");
  Pipeline evicting = all;
  evicting.select = {{of_tests("keydiff"), {70, 1}}};
  const LayerShape shape = test::shape(1, 1, 1, 16, Dtype::bf16);
  Grower grown(evicting, shape, {.decodes = true}, 4);
  Grower whole(all, shape, {.decodes = true}, 4);
  do {
    grown.append();
    whole.append();
  } while (grown.head().kept() == whole.tokens());
  ASSERT_TRUE(whole.head().keys.segments[1].encoded);
  const Held held = test::held(whole.layer(), 0, 0, KVLAB_ROLE_KEYS);
  std::vector<std::vector<float>> rows;
  for (auto row = held.rows.begin(); row != held.rows.end(); row += 16) rows.emplace_back(row, row + 16);
  EXPECT_EQ(kept(grown.head()), chosen(held.positions, keydiff_scores(rows), 1, 10, 70));
}

// Observed queries choose among the tokens of the prefill; what comes later stays, and other selectors go on.
TEST(Scope, ObservedQueriesChooseInThePrefillAlone) {
  Backend& backend = test::backend(1);
  const LayerShape shape = test::shape(1, 1, 2, 16, Dtype::f32);
  const Data data(shape, 200);
  Pipeline pipeline;
  pipeline.sinks = 2;
  pipeline.select = {{spec("attention_score"), {std::nullopt, 0.25}}};
  for (const std::uint64_t window : {std::uint64_t{0}, std::uint64_t{100}}) {
    if (window > 0) pipeline.select.push_back({spec("sliding_window"), {window, 1}});
    CacheManager cache(pipeline, std::span(&shape, 1), backend, {.decodes = true});
    cache.prefill(0, 0, data.prefill());
    const auto of_prefill = kept(cache.layer(0).head(0, 0));
    ASSERT_EQ(of_prefill.size(), 50U);
    Model model(shape, 5);
    for (std::uint32_t i = 0; i < 400; ++i) append(cache, 0, model.draw(1));
    const auto now = kept(cache.layer(0).head(0, 0));
    if (window == 0) {
      std::vector<std::uint32_t> expected = of_prefill;
      for (std::uint32_t i = 200; i < 600; ++i) expected.push_back(i);
      EXPECT_EQ(now, expected);
    } else {
      ASSERT_GE(now.size(), window);
      ASSERT_LT(now.size(), window + 128);
      EXPECT_EQ(now[0], 0U);
      EXPECT_EQ(now[1], 1U);
      EXPECT_EQ(now.back() - now[2], now.size() - 3);  // but for the sinks, the newest
    }
  }
}

}  // namespace
}  // namespace kvlab
