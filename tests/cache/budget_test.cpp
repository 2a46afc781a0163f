// What an append promises itself of the budget: it is refused where a byte of that is missing, and then nothing has
// changed; it never takes more; and where codecs fill their bounds and nothing is evicted, it takes just that.
#include <gtest/gtest.h>

#include "tests/cache/life.hpp"

namespace kvlab {
namespace {

using namespace test;

bool fills_bounds(const LayerCache& cache) {
  const auto all = [](const Role& role) {
    return std::all_of(role.codecs.begin(), role.codecs.end(),
                       [](const CodecInstance& codec) { return codec.traits().fills_bound != 0; });
  };
  return all(cache.layer().keys) && all(cache.layer().values);
}

TEST(Budget, AnAppendTakesWhatItPromisedAndIsRefusedForAByteLess) {
#if defined(KVLAB_SANITIZED)
  constexpr int steps = 300;
#else
  constexpr int steps = 1500;
#endif
  for (const Case& of_all : pipelines()) {
    const Pipeline& pipeline = of_all.pipeline;
    if (recodes(pipeline)) continue;  // that takes what is left, later
    SCOPED_TRACE(of_all.name);
    const LayerShape shape = test::shape(2, 2, 4, 16, Dtype::bf16);
    CacheManager cache(pipeline, std::span(&shape, 1), test::backend(), {.decodes = true});
    Life life(pipeline, shape, {&cache}, 31);
    const bool is_exact = pipeline.select.empty() && fills_bounds(cache.layer(0));
    int refused = 0;
    life.appending = [&](CacheManager& of, std::uint32_t sequence, std::uint64_t tokens, const Life::Append& append) {
      Arena& arena = of.arena();
      const std::span one(&sequence, 1);
      const std::uint64_t promised = of.layer(0).append_bytes(one, tokens);
      const std::uint64_t before = arena.reserved();
      if (promised > 0) {
        const auto bytes = all_bytes(of.layer(0), sequence);
        arena.set_budget(before + promised - 1);
        EXPECT_THROW(append(), BudgetError);
        ++refused;
        ASSERT_EQ(arena.reserved(), before);
        ASSERT_EQ(all_bytes(of.layer(0), sequence), bytes);
      }
      arena.set_budget(before + promised);
      arena.reset_most();
      append();
      ASSERT_LE(arena.most_reserved(), before + promised);
      if (is_exact) {
        ASSERT_EQ(arena.most_reserved(), before + promised) << tokens << " tokens";
      }
      arena.set_budget(Arena::no_budget);
    };
    for (int step = 0; step < steps; ++step) {
      life.step();
      ASSERT_FALSE(testing::Test::HasFatalFailure()) << "step " << step;
      if (step % 20 == 0) life.expect_all_hold(cache);
    }
    EXPECT_GT(refused, steps / 20);
  }
}

}  // namespace
}  // namespace kvlab
