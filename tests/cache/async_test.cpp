// Blocks encoded in the background: the same cache in the end, whatever happened meanwhile. What a thread does wrong
// here ThreadSanitizer finds (.ci/run builds these tests under it).
#include <gtest/gtest.h>

#include "core/backend/encoding.hpp"
#include "core/cache/append.hpp"
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
  std::uint64_t window = 90;  // of the layer: every second time it has one
  for (const Case& of : pipelines()) {
    SCOPED_TRACE(of.name);
    LayerShape shape = test::shape(2, 2, 4, 16, Dtype::bf16);
    shape.window = std::exchange(window, window == 0 ? 90 : 0);
    CacheManager now(of.pipeline, std::span(&shape, 1), test::backend(), {.decodes = true});
    CacheManager later(in_background(of.pipeline), std::span(&shape, 1), test::backend(), {.decodes = true});
    Life life(of.pipeline, shape, {&now, &later}, 21);
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
        ASSERT_EQ(cache->layer(0).bytes().total(), cache->requested_bytes()) << "step " << step;
      }
      ASSERT_EQ(later.bytes().total(), now.bytes().total()) << "step " << step;
      for (const auto& [sequence, rows] : life.given()) {
        expect_same(later.layer(0), now.layer(0), sequence);
        ASSERT_FALSE(testing::Test::HasFatalFailure()) << "step " << step;
      }
    }
  }
}

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
    const Drawn prompt = Model(shape, round).draw(90);
    for (auto* cache : {&now, &later}) {
      cache->prefill(0, 0, prompt.prefill());
      Model model(shape, 5);
      for (int i = 0; i < 40; ++i) append(*cache, 0, model.draw(1));
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
  Model model(shape, 5);
  for (int i = 0; i < 20; ++i) {
    CacheManager cache(slow, std::span(&shape, 1), backend);
    for (int j = 0; j < 4; ++j) {
      append(cache, 0, model.draw(257));
      append(cache, 1, model.draw(257));
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
  Model model(shape, 5);
  std::uint64_t count = 0;
  bool refused = false;
  try {
    for (; count < 60000; count += 3) {
      append(cache, 0, model.draw(3));
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
    Model model(shape, 5);
    append(cache, 1, model.draw(10));
    append(cache, 0, model.draw(64));
    EXPECT_EQ(cache.layer(0).tokens(0), 64U);
    if (by_flush) {
      EXPECT_THROW(cache.flush(), MethodError);
    } else {
      cache.layer(0).head(0, 0).encodings.front()->wait();
      EXPECT_THROW(append(cache, 0, model.draw(1)), MethodError);
    }
    EXPECT_EQ(cache.layer(0).tokens(0), 0U);
    EXPECT_EQ(cache.layer(0).tokens(1), 10U);
    cache.flush();
    EXPECT_EQ(cache.bytes().total(), cache.requested_bytes());
    append(cache, 0, model.draw(63));
  }
}

}  // namespace
}  // namespace kvlab
