// Random steps of a decoding life against a plain model, and eviction over many tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <random>

#include "tests/cache/life.hpp"

namespace kvlab {
namespace {

using namespace test;

// Thousands of steps of prefill, append, attend, fork, clear, remove and add, drawn at random.
TEST(Grow, RandomStepsHoldAgainstAPlainModel) {
  Backend& backend = test::backend(2);
  for (const auto& [name, pipeline] : pipelines()) {
    SCOPED_TRACE(name);
    LayerShape shape = test::shape(2, 2, 4, 16, Dtype::bf16);
    CacheManager cache(pipeline, std::span(&shape, 1), backend, {.decodes = true});
    Life life(pipeline, shape, {&cache}, 11);
    for (int step = 0; step < 1500; ++step) {
      life.step();
      ASSERT_FALSE(testing::Test::HasFatalFailure()) << "step " << step;
      ASSERT_EQ(cache.bytes().total(), cache.requested_bytes()) << "step " << step;
      if (step % 10 == 0) life.expect_all_hold(cache);
    }
  }
}

// A window moves: its newest tokens and the sinks are there, little more, and memory is what it was at the start.
TEST(Grow, AWindowHoldsItsSizeOverManyTokens) {
#if defined(KVLAB_SANITIZED)
  constexpr std::uint64_t tokens = 5000;
#else
  constexpr std::uint64_t tokens = 100000;
#endif
  Backend& backend = test::backend(1);
  LayerShape shape = test::shape(1, 1, 1, 16, Dtype::bf16);
  Pipeline window = kivi(4, 32);
  window.select = {{spec("sliding_window"), {512, 1}}};
  CacheManager cache(window, std::span(&shape, 1), backend, {.decodes = true});
  Model model(shape, 9);
  Given given;
  const auto keys = model.draw(64, 16, given.keys);
  const auto values = model.draw(64, 16, given.values);
  const std::uint32_t sequence = 0;
  std::uint64_t warm = 0;
  std::vector<std::uint32_t> positions;
  for (std::uint64_t token = 0; token < tokens; ++token) {
    const auto from = [&](const std::vector<std::byte>& rows) {
      KvTensor one = tensor(rows, shape, 64, 16);
      one.base = rows.data() + token % 64 * 32;
      return one;
    };
    cache.append(0, std::span(&sequence, 1), 1, from(keys), from(values));
    if (token == 2000) warm = cache.reserved_bytes();
    ASSERT_LE(cache.reserved_bytes(), token > 2000 ? warm + warm / 4 : UINT64_MAX) << token;
    if (token % 97 != 0) continue;
    const Head& head = cache.layer(0).head(0, 0);
    ASSERT_EQ(cache.bytes().total(), cache.requested_bytes());
    ASSERT_LT(head.kept(), 512U + 128U);
    if (token < 600) continue;
    head.positions.write_out(positions);
    std::erase_if(positions, [](std::uint32_t p) { return p >= evicted; });
    for (std::uint32_t i = 0; i < 4; ++i) ASSERT_EQ(positions[i], i);
    for (std::size_t i = 4; i < positions.size(); ++i) ASSERT_EQ(positions[i], token + 1 - positions.size() + i);
    ASSERT_GE(positions.size(), 512U);
  }
}

// 2^20 tokens, the same 64 again and again: attention over all of them is attention over the 64, whose codes all
// repeat.
TEST(Grow, AMillionTokensAreAttendedToAlike) {
#if defined(KVLAB_SANITIZED)
  constexpr std::uint64_t tokens = std::uint64_t{1} << 17;
#else
  constexpr std::uint64_t tokens = std::uint64_t{1} << 20;
#endif
  constexpr std::uint64_t step = 4096;
  Backend& backend = test::backend(2);
  LayerShape shape = test::shape(1, 1, 4, 16, Dtype::bf16);
  Pipeline pipeline;
  pipeline.keys = spec("quantize");
  pipeline.values = spec("quantize", {{"bits", "4"}, {"symmetric", "false"}});
  Model model(shape, 12);
  Given given;
  std::vector<std::byte> keys;
  std::vector<std::byte> values;
  const auto pattern_keys = model.draw(64, 16, given.keys);
  const auto pattern_values = model.draw(64, 16, given.values);
  for (std::uint64_t i = 0; i < step / 64; ++i) {
    keys.insert(keys.end(), pattern_keys.begin(), pattern_keys.end());
    values.insert(values.end(), pattern_values.begin(), pattern_values.end());
  }
  CacheManager grown(pipeline, std::span(&shape, 1), backend);
  CacheManager once(pipeline, std::span(&shape, 1), backend);
  const std::uint32_t sequence = 0;
  for (std::uint64_t done = 0; done < tokens; done += step) {
    grown.append(0, std::span(&sequence, 1), step, tensor(keys, shape, step, 16), tensor(values, shape, step, 16));
  }
  once.prefill(0, {64, tensor(keys, shape, 64, 16), tensor(values, shape, 64, 16), {}});
  EXPECT_EQ(grown.layer(0).tokens(0), tokens);
  EXPECT_EQ(grown.bytes().total(), tokens * (16 + 2 + 8 + 4));
  const std::vector<float> queries = model.queries(1);
  std::vector<float> out(4 * 16);
  const std::vector<std::uint32_t> last{static_cast<std::uint32_t>(tokens - 1)};
  grown.attend(0, std::span(&sequence, 1), queries.data(), last, out.data());
  const auto expected = reference(once.layer(0), 0, queries, {63});
  EXPECT_LT(test::relative(out, expected), test::attention_tolerance);
}

// Of many tokens with norms of their own the largest stay, whatever was evicted before.
TEST(Grow, AScoredBudgetKeepsTheHighest) {
  Backend& backend = test::backend(1);
  LayerShape shape = test::shape(1, 1, 1, 16, Dtype::f32);
  for (const bool coded : {false, true}) {
    Pipeline pipeline = coded ? kivi(0, 0, "8") : Pipeline{};
    pipeline.select = {{spec("magnitude", {{"of", "keys"}}), {64, 1}}};
    CacheManager cache(pipeline, std::span(&shape, 1), backend, {.decodes = true});
    std::vector<std::uint32_t> norms(3000);
    std::iota(norms.begin(), norms.end(), 1U);
    std::mt19937_64 engine(4);
    std::shuffle(norms.begin(), norms.end(), engine);
    const std::uint32_t sequence = 0;
    for (std::uint32_t token = 0; token < norms.size(); ++token) {
      std::vector<float> row(16, static_cast<float>(norms[token]));
      const KvTensor one{row.data(), 16, 16, 16};
      cache.append(0, std::span(&sequence, 1), 1, one, one);
    }
    const Head& head = cache.layer(0).head(0, 0);
    std::vector<std::uint32_t> positions;
    head.positions.write_out(positions);
    std::erase_if(positions, [](std::uint32_t p) { return p >= evicted; });
    ASSERT_LT(positions.size(), 64U + 128U);
    std::size_t high = 0;
    for (const std::uint32_t p : positions) high += norms[p] > 3000 - 64 ? 1 : 0;
    EXPECT_EQ(high, 64U);  // the 64 largest of all are among what is left
    if (coded) {
      std::uint64_t blocks = 0;
      for (const auto& segment : head.keys.segments) blocks += segment.encoded ? 1 : 0;
      EXPECT_LT(head.positions.tokens(), 2 * positions.size() + 64);  // at most half of a cell is dead
      EXPECT_GT(blocks, 0U);
    }
  }
}

}  // namespace
}  // namespace kvlab
