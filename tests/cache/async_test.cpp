// Blocks encoded in the background: the same cache in the end, whatever happened meanwhile. What a thread does wrong
// here ThreadSanitizer finds (.ci/run builds these tests under it).
#include <gtest/gtest.h>

#include "core/cache/append.hpp"
#include "core/backend/encoding.hpp"
#include "tests/cache/life.hpp"

namespace kvlab {
namespace {

using namespace test;

Pipeline in_background(Pipeline pipeline) {
  pipeline.async = true;
  return pipeline;
}

void expect_same(const LayerCache& a, const LayerCache& b, std::uint32_t sequence) {
  for (std::uint32_t h = 0; h < a.shape().kv_heads; ++h) {
    std::vector<std::uint32_t> at;
    std::vector<std::uint32_t> bt;
    a.head(sequence, h).positions.write_out(at);
    b.head(sequence, h).positions.write_out(bt);
    ASSERT_EQ(at, bt);
    for (const auto role : {&Head::keys, &Head::values}) {
      const auto& as = (a.head(sequence, h).*role).segments;
      const auto& bs = (b.head(sequence, h).*role).segments;
      ASSERT_EQ(as.size(), bs.size());
      for (std::size_t i = 0; i < as.size(); ++i) {
        ASSERT_EQ(as[i].tokens, bs[i].tokens);
        ASSERT_EQ(as[i].encoded, bs[i].encoded);
        ASSERT_EQ(as[i].rung, bs[i].rung);
        ASSERT_EQ(as[i].encoding, nullptr);
      }
    }
  }
  ASSERT_EQ(all_bytes(a, sequence), all_bytes(b, sequence));
}

// Beside a cache that encodes at once, through thousands of random steps; ladders recode when they come to it, so what
// they recode is compared where both have finished.
TEST(Async, EqualsTheSynchronousCacheAfterFlush) {
#if defined(KVLAB_SANITIZED)
  constexpr int steps = 300;
#else
  constexpr int steps = 1500;
#endif
  Backend& backend = test::backend(2);
  for (const auto& [name, pipeline] : pipelines()) {
    SCOPED_TRACE(name);
    LayerShape shape = test::shape(2, 2, 4, 16, Dtype::bf16);
    CacheManager now(pipeline, std::span(&shape, 1), backend, {.decodes = true});
    CacheManager later(in_background(pipeline), std::span(&shape, 1), backend, {.decodes = true});
    Life life(pipeline, shape, {&now, &later}, 21);
    for (int step = 0; step < steps; ++step) {
      life.step();
      ASSERT_FALSE(testing::Test::HasFatalFailure()) << "step " << step;
      for (const auto& [sequence, rows] : life.given()) {
        for (std::uint32_t h = 0; h < 2; ++h) {
          ASSERT_LE(later.layer(0).head(sequence, h).encodings.size(), 2 * Encoder::most_under_way);
        }
      }
      if (step % 10 == 5) life.expect_all_hold(later);
      if (step % 29 != 0) continue;
      for (auto* cache : {&now, &later}) {
        cache->flush();
        ASSERT_EQ(cache->bytes().total(), cache->requested_bytes()) << "step " << step;
      }
      ASSERT_EQ(later.bytes().total(), now.bytes().total()) << "step " << step;
      for (const auto& [sequence, rows] : life.given()) {
        expect_same(later.layer(0), now.layer(0), sequence);
        ASSERT_FALSE(testing::Test::HasFatalFailure()) << "step " << step;
      }
    }
  }
}

class Tokens {
 public:
  explicit Tokens(const LayerShape& shape) : shape_(shape), model_(shape, 5) {}

  void append(CacheManager& cache, std::uint32_t sequence, std::uint64_t count) {
    const auto keys = model_.draw(count, 16, given_.keys);
    const auto values = model_.draw(count, 16, given_.values);
    cache.append(0, std::span(&sequence, 1), count, tensor(keys, shape_, count, 16), tensor(values, shape_, count, 16));
  }

 private:
  LayerShape shape_;
  Model model_;
  Given given_;
};

// A chunk with room for a block of 128 holds 32 tokens when the rung of blocks of 32 comes: it is full from then on,
// whether the next token comes before the block is encoded or after.
TEST(Async, NothingIsAddedToAChunkThatIsBeingEncoded) {
  Backend& backend = test::backend(1);
  LayerShape shape = test::shape(1, 1, 1, 16, Dtype::bf16);
  Pipeline pipeline;
  pipeline.ladder = {rung(0, kivi(0, 0)), rung(100, kivi(0, 0))};
  pipeline.ladder[0].keys = spec("quantize");
  CacheManager now(pipeline, std::span(&shape, 1), backend);
  CacheManager later(in_background(pipeline), std::span(&shape, 1), backend);
  for (std::uint64_t round = 0; round < 50; ++round) {
    Model model(shape, round);
    Given given;
    const auto keys = model.draw(90, 16, given.keys);
    const auto values = model.draw(90, 16, given.values);
    const Prefill prompt{90, tensor(keys, shape, 90, 16), tensor(values, shape, 90, 16), {}};
    for (auto* cache : {&now, &later}) {
      cache->prefill(0, 0, prompt);
      Tokens tokens(shape);
      for (int i = 0; i < 40; ++i) tokens.append(*cache, 0, 1);
      cache->flush();
    }
    expect_same(later.layer(0), now.layer(0), 0);
    ASSERT_FALSE(testing::Test::HasFatalFailure()) << "round " << round;
  }
}

TEST(Async, CachesAndSequencesGoWhileBlocksAreEncoded) {
  Backend& backend = test::backend(2);
  LayerShape shape = test::shape(2, 2, 2, 16, Dtype::bf16);
  Pipeline slow = in_background({});
  slow.keys = slow.values = spec("low_rank", {{"rank", "16"}, {"block", "256"}});
  Tokens tokens(shape);
  for (int i = 0; i < 20; ++i) {
    CacheManager cache(slow, std::span(&shape, 1), backend);
    for (int j = 0; j < 4; ++j) {
      tokens.append(cache, 0, 257);
      tokens.append(cache, 1, 257);
      const std::uint32_t fork = cache.fork(1);
      cache.clear(0);
      cache.remove(1);
      ASSERT_EQ(cache.fork(fork), 1U);
      cache.remove(fork);
    }
  }
}

TEST(Async, ABudgetHoldsForWhatIsOnItsWay) {
  Backend& backend = test::backend(2);
  LayerShape shape = test::shape(1, 2, 2, 16, Dtype::bf16);
  constexpr std::uint64_t budget = 200000;
  CacheManager cache(in_background(kivi(4, 64)), std::span(&shape, 1), backend, {budget});
  Tokens tokens(shape);
  std::uint64_t count = 0;
  bool refused = false;
  try {
    for (; count < 60000; count += 3) {
      tokens.append(cache, 0, 3);
      ASSERT_LE(cache.reserved_bytes(), budget);
    }
  } catch (const BudgetError&) {
    refused = true;
  }
  EXPECT_TRUE(refused);
  EXPECT_EQ(cache.layer(0).tokens(0), count);
  cache.flush();
  EXPECT_LE(cache.reserved_bytes(), budget);
  EXPECT_GT(cache.bytes().total(), budget * 7 / 10);
}

// What a method does wrong in the background is thrown by the next call that looks, and costs its own sequence alone.
TEST(Async, AFailureIsThrownByTheNextCall) {
  const Registry registry({std::filesystem::path(KVLAB_BINARY_DIR) / "tests" / "plugins"});
  const Method* method = registry.find("misbehave");
  ASSERT_NE(method, nullptr);
  Pipeline pipeline = in_background({});
  pipeline.keys = MethodSpec{method, {parse(method->parameters.front(), "throws")}};
  Backend& backend = test::backend(2);
  LayerShape shape = test::shape(2, 1, 1, 16);
  for (const bool by_flush : {true, false}) {
    CacheManager cache(pipeline, std::span(&shape, 1), backend);
    Tokens tokens(shape);
    tokens.append(cache, 1, 10);
    tokens.append(cache, 0, 64);
    EXPECT_EQ(cache.layer(0).tokens(0), 64U);
    if (by_flush) {
      EXPECT_THROW(cache.flush(), MethodError);
    } else {
      cache.layer(0).head(0, 0).encodings.front()->wait();
      EXPECT_THROW(tokens.append(cache, 0, 1), MethodError);
    }
    EXPECT_EQ(cache.layer(0).tokens(0), 0U);
    EXPECT_EQ(cache.layer(0).tokens(1), 10U);
    cache.flush();
    EXPECT_EQ(cache.bytes().total(), cache.requested_bytes());
    tokens.append(cache, 0, 63);
  }
}

}  // namespace
}  // namespace kvlab
