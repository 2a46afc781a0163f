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

std::vector<std::uint32_t> alive(const Head& head) {
  std::vector<std::uint32_t> positions;
  head.positions.write_out(positions);
  std::erase_if(positions, [](std::uint32_t p) { return p >= evicted; });
  return positions;
}

// Appends a token; `given` gets its rows.
void append_one(CacheManager& cache, const LayerShape& shape, Model& model, Given& given) {
  const std::uint32_t sequence = 0;
  const auto keys = model.draw(1, 16, given.keys);
  const auto values = model.draw(1, 16, given.values);
  cache.append(0, std::span(&sequence, 1), 1, tensor(keys, shape, 1, 16), tensor(values, shape, 1, 16));
}

// One token at a time, against the same written out: at each eviction all present tokens are scored together.
TEST(Scope, ScoresOfAllPresentTokensAreTakenAnewAtEachEviction) {
  constexpr std::size_t sinks = 2;
  constexpr std::size_t tail = 5;
  constexpr std::size_t budget = 60;
  constexpr std::size_t step = 128;  // what a raw cache evicts at a time
  Backend& backend = test::backend(1);
  LayerShape shape = test::shape(1, 1, 1, 16, Dtype::f32);
  Pipeline pipeline;
  pipeline.sinks = sinks;
  pipeline.tail = tail;
  pipeline.select = {{keydiff(), {budget, 1}}};
  CacheManager cache(pipeline, std::span(&shape, 1), backend, {.decodes = true});
  Model model(shape, 3);
  Given given;
  std::vector<std::uint32_t> expected;
  int evictions = 0;
  for (std::uint32_t token = 0; token < 900; ++token) {
    append_one(cache, shape, model, given);
    expected.push_back(token);
    if (expected.size() >= budget + step) {
      std::vector<std::vector<float>> keys;
      for (const std::uint32_t p : expected) {
        keys.emplace_back(given.keys[0].begin() + p * 16, given.keys[0].begin() + (p + 1) * 16);
      }
      expected = chosen(expected, keydiff_scores(keys), sinks, tail, budget);
      ++evictions;
    }
    ASSERT_EQ(alive(cache.layer(0).head(0, 0)), expected) << token;
  }
  EXPECT_GE(evictions, 5);
  EXPECT_EQ(cache.layer(0).head(0, 0).scores[0].size(), 0U);  // none is kept, none is counted
}

// Where older tokens are in blocks, the scores are of their decoded rows: those of a cache that evicts nothing.
TEST(Scope, RowsOfBlocksAreReadAsTheyDecode) {
  Backend& backend = test::backend(1);
  LayerShape shape = test::shape(1, 1, 1, 16, Dtype::bf16);
  const Pipeline all = kivi(1, 10, "2");
  Pipeline evicting = all;
  evicting.select = {{keydiff(), {70, 1}}};
  CacheManager cache(evicting, std::span(&shape, 1), backend, {.decodes = true});
  CacheManager whole(all, std::span(&shape, 1), backend, {.decodes = true});
  Model model(shape, 4);
  Model same(shape, 4);
  Given given;
  std::vector<std::uint32_t> present;
  do {
    present.push_back(static_cast<std::uint32_t>(present.size()));
    append_one(cache, shape, model, given);
    append_one(whole, shape, same, given);
  } while (cache.layer(0).head(0, 0).kept() == present.size());
  const Head& head = whole.layer(0).head(0, 0);
  ASSERT_TRUE(head.keys.segments[1].encoded);
  std::vector<std::vector<float>> rows;
  for (const auto& segment : head.keys.segments) {
    std::vector<float> decoded(segment.tokens * 16);
    backend.read(whole.layer(0).layer().keys, 0, segment, head.positions.view(), 0, segment.tokens, decoded.data());
    for (auto row = decoded.begin(); row != decoded.end(); row += 16) rows.emplace_back(row, row + 16);
  }
  EXPECT_EQ(alive(cache.layer(0).head(0, 0)), chosen(present, keydiff_scores(rows), 1, 10, 70));
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
    const auto of_prefill = alive(cache.layer(0).head(0, 0));
    ASSERT_EQ(of_prefill.size(), 50U);
    Model model(shape, 5);
    Given given;
    for (std::uint32_t i = 0; i < 400; ++i) append_one(cache, shape, model, given);
    const auto now = alive(cache.layer(0).head(0, 0));
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
