// Random steps of a decoding life against a plain model, and eviction over many tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "tests/cache/life.hpp"

namespace kvlab {
namespace {

using namespace test;

// Thousands of steps of prefill, append, attend, fork, clear, remove and add, drawn at random.
TEST(Grow, RandomStepsHoldAgainstAPlainModel) {
  std::uint64_t window = 0;  // of the layer: every second time it has one
  for (const Case& of : pipelines()) {
    SCOPED_TRACE(of.name);
    LayerShape shape = test::shape(2, 2, 4, 16, Dtype::bf16);
    shape.head_dim_values = 24;
    shape.window = std::exchange(window, window == 0 ? 90 : 0);
    CacheManager cache(of.pipeline, std::span(&shape, 1), test::backend(), {.decodes = true});
    Life life(of.pipeline, shape, {&cache}, 11);
    for (int step = 0; step < 1500; ++step) {
      life.step();
      ASSERT_FALSE(testing::Test::HasFatalFailure()) << "step " << step;
      ASSERT_EQ(cache.layer(0).bytes().total(), cache.requested_bytes()) << "step " << step;
      if (step % 10 == 0) life.expect_all_hold(cache);
    }
  }
}

// A window moves: its newest tokens and the sinks are there, little more, and memory is what it was at the start.
TEST(Grow, AWindowHoldsItsSizeOverManyTokens) {
#if defined(KVLAB_SANITIZED)
  constexpr std::uint32_t tokens = 5000;
#else
  constexpr std::uint32_t tokens = 100000;
#endif
  const LayerShape shape = test::shape(1, 1, 1, 16, Dtype::bf16);
  Pipeline window = kivi(4, 32);
  window.select = {{spec("sliding_window"), {512, 1}}};
  CacheManager cache(window, std::span(&shape, 1), test::backend(1), {.decodes = true});
  const Drawn drawn = Model(shape, 9).draw(64);
  const std::vector<std::uint32_t> sequence{0};
  std::uint64_t warm = 0;
  for (std::uint32_t token = 0; token < tokens; ++token) {
    cache.append(0, sequence, drawn.keys().slice(token % 64, 1), drawn.values().slice(token % 64, 1));
    if (token == 2000) warm = cache.reserved_bytes();
    ASSERT_LE(cache.reserved_bytes(), token > 2000 ? warm + warm / 4 : UINT64_MAX) << token;
    if (token % 97 != 0) continue;
    const Head& head = cache.layer(0).head(0, 0);
    ASSERT_EQ(cache.bytes().total(), cache.requested_bytes());
    ASSERT_LT(head.kept(), 512U + 128U);
    if (token < 600) continue;
    const auto positions = kept(head);
    for (std::uint32_t i = 0; i < 4; ++i) ASSERT_EQ(positions[i], i);
    for (std::size_t i = 4; i < positions.size(); ++i) ASSERT_EQ(positions[i], token + 1 - positions.size() + i);
    ASSERT_GE(positions.size(), 512U);
  }
}

// 2^20 tokens, the same 64 again and again: attention over all of them is attention over the 64, whose codes all
// repeat.
TEST(Grow, AMillionTokensAreAttendedToAlike) {
#if defined(KVLAB_SANITIZED)
  constexpr std::uint32_t tokens = 1U << 17;
#else
  constexpr std::uint32_t tokens = 1U << 20;
#endif
  constexpr std::uint64_t step = 4096;
  const LayerShape shape = test::shape(1, 1, 4, 16, Dtype::bf16);
  Pipeline pipeline;
  pipeline.keys = spec("quantize");
  pipeline.values = spec("quantize", {{"bits", "4"}, {"symmetric", "false"}});
  Model model(shape, 12);
  const Drawn pattern = model.draw(64);
  Drawn repeated{shape, step, {}, {}};
  for (std::uint64_t i = 0; i < step / 64; ++i) {
    const auto add = [](std::vector<std::byte>& to, const std::vector<std::byte>& rows) {
      to.insert(to.end(), rows.begin(), rows.end());
    };
    add(repeated.stored_keys, pattern.stored_keys);
    add(repeated.stored_values, pattern.stored_values);
  }
  CacheManager grown(pipeline, std::span(&shape, 1), test::backend());
  CacheManager once(pipeline, std::span(&shape, 1), test::backend());
  for (std::uint64_t done = 0; done < tokens; done += step) append(grown, 0, repeated);
  once.prefill(0, pattern.prefill());
  EXPECT_EQ(grown.layer(0).tokens(0), tokens);
  EXPECT_EQ(grown.bytes().total(), tokens * (16 + 2 + 8 + 4));
  const std::vector<float> rows = model.queries(1);
  const std::vector<std::uint32_t> last{tokens - 1};
  const auto queries = QueryTensor::contiguous(shape, 1, 1, rows.data(), last);
  const std::vector<std::uint32_t> sequence{0};
  EXPECT_LT(relative(attend(grown, 0, queries), attention(once.layer(0), sequence, queries)), attention_tolerance);
}

// Of many tokens with norms of their own the largest stay, whatever was evicted before.
TEST(Grow, AScoredBudgetKeepsTheHighest) {
  const LayerShape shape = test::shape(1, 1, 1, 16, Dtype::f32);
  for (const bool coded : {false, true}) {
    Pipeline pipeline = coded ? kivi(0, 0, "8") : Pipeline{};
    pipeline.select = {{spec("magnitude", {{"of", "keys"}}), {64, 1}}};
    CacheManager cache(pipeline, std::span(&shape, 1), test::backend(1), {.decodes = true});
    std::vector<std::uint32_t> norms(3000);
    std::iota(norms.begin(), norms.end(), 1U);
    std::mt19937_64 engine(4);
    std::shuffle(norms.begin(), norms.end(), engine);
    const std::vector<std::uint32_t> sequence{0};
    for (const std::uint32_t norm : norms) {
      const std::vector<float> row(16, static_cast<float>(norm));
      cache.append(0, sequence, KvTensor::contiguous(shape, KVLAB_ROLE_KEYS, 1, 1, row.data()),
                   KvTensor::contiguous(shape, KVLAB_ROLE_VALUES, 1, 1, row.data()));
    }
    const Head& head = cache.layer(0).head(0, 0);
    const auto positions = kept(head);
    ASSERT_LT(positions.size(), 64U + 128U);
    std::size_t high = 0;
    for (const std::uint32_t p : positions) high += norms[p] > 3000 - 64 ? 1 : 0;
    EXPECT_EQ(high, 64U);  // the 64 largest of all are among what is left
    if (coded) {
      std::uint64_t blocks = 0;
      for (const auto& segment : head.keys.segments) blocks += segment.encoded ? 1 : 0;
      EXPECT_LT(head.positions.tokens(), 2 * positions.size() + 64);  // at most half of a block is dead
      EXPECT_GT(blocks, 0U);
    }
  }
}

}  // namespace
}  // namespace kvlab
