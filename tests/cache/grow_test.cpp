// A cache that grows: against one prefill, forked, of several lengths, under a budget.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/cache/growing.hpp"

namespace kvlab {
namespace {

using namespace test;

// From `start` coded tokens on, `step` at a time.
void expect_growing_is_one_prefill(const Case& of, std::uint64_t start, std::uint64_t step) {
  const LayerShape shape = test::shape(1, 2, 4, 16, Dtype::bf16);
  const std::uint64_t raw = of.pipeline.sinks + of.pipeline.tail;
  const std::uint64_t total = (of.is_cut_alike ? 1152 : 900) + raw;
  Model model(shape, 3);
  const Drawn all = model.draw(total);
  CacheManager whole(of.pipeline, std::span(&shape, 1), test::backend());
  CacheManager grown(of.pipeline, std::span(&shape, 1), test::backend());
  whole.prefill(0, all.prefill());
  std::uint64_t done = start == 0 ? 0 : start + raw;
  grown.prefill(0, {all.keys().slice(0, done), all.values().slice(0, done), {}});
  const std::vector<std::uint32_t> sequence{0};
  const Turned values(all.values(), 3);  // as a model may have them: the heads of a token side by side
  for (std::uint64_t now = 0; done < total; done += now) {
    now = std::min(step, total - done);
    grown.append(0, sequence, all.keys().slice(done, now), values.tensor().slice(done, now));
  }
  EXPECT_EQ(grown.layer(0).tokens(0), whole.layer(0).tokens(0));
  if (of.is_cut_alike) {
    EXPECT_EQ(grown.bytes().total(), whole.bytes().total());
    EXPECT_EQ(all_bytes(grown.layer(0), 0), all_bytes(whole.layer(0), 0));
  }
  const std::vector<float> rows = model.queries(1);
  const std::vector<std::uint32_t> position{static_cast<std::uint32_t>(total)};
  const auto queries = QueryTensor::contiguous(shape, 1, 1, rows.data(), position);
  EXPECT_LT(relative(attend(whole, 0, queries), attend(grown, 0, queries)), of.is_cut_alike ? 1e-6 : 0.1);
}

// Where the cuts coincide, growing is one prefill: the same bytes, the same attention.
TEST(Grow, EqualsOnePrefillWhereCutsCoincide) {
  for (const Case& of : pipelines()) {
    if (!of.pipeline.select.empty()) continue;  // evicting by blocks is not selecting at once
    if (recodes(of.pipeline)) continue;         // what is encoded twice is not what was encoded once
    for (const std::uint64_t start : {0U, 128U, 384U}) {
      if (!of.is_cut_alike && start != 0) continue;
      for (const std::uint64_t step : {1U, 7U, 128U, 1000U}) {
        SCOPED_TRACE(of.name + ", from " + std::to_string(start) + " by " + std::to_string(step));
        expect_growing_is_one_prefill(of, start, step);
      }
    }
  }
}

TEST(Grow, ForksShareWhatTheyHaveInCommon) {
  Grower grown(kivi(4, 32), test::shape(1, 1, 1, 16, Dtype::bf16));
  CacheManager& cache = grown.cache();
  grown.prefill(1000);
  const std::uint64_t one = cache.bytes().total();
  const std::uint32_t fork = cache.fork(0);
  EXPECT_EQ(cache.bytes().total(), one);
  const std::vector<std::byte> before = all_bytes(cache.layer(0), 0);
  append(cache, fork, Model(cache.layer(0).shape(), 5).draw(1));
  EXPECT_GT(cache.bytes().total(), one);
  EXPECT_LT(cache.bytes().total(), one + 2 * 32 * 32 + 2 * 32 + 1);  // the open chunks of one fork, and a token
  EXPECT_EQ(all_bytes(cache.layer(0), 0), before);
  EXPECT_EQ(cache.layer(0).tokens(0), 1000U);
  EXPECT_EQ(cache.layer(0).tokens(fork), 1001U);
  cache.remove(0);
  cache.remove(fork);
  EXPECT_EQ(cache.bytes().total(), 0U);
  EXPECT_EQ(cache.reserved_bytes(), 0U);
}

TEST(Grow, SequencesOfOneBatchDifferInLength) {
  const LayerShape shape = test::shape(3, 2, 4, 16, Dtype::f32);
  CacheManager cache(kivi(2, 9), std::span(&shape, 1), test::backend());
  Model model(shape, 6);
  std::vector<Given> given(3);
  const std::vector<std::uint64_t> lengths{700, 1, 0};
  for (std::uint32_t i = 0; i < 3; ++i) cache.prefill(0, i, model.draw(lengths[i], given[i]).prefill());
  const std::vector<std::uint32_t> order{2, 0, 1};
  const std::vector<std::uint32_t> positions{0, 699, 5};
  std::vector<float> rows;
  for (int i = 0; i < 3; ++i) {
    const auto own = model.queries(1);
    rows.insert(rows.end(), own.begin(), own.end());
  }
  const auto queries = QueryTensor::contiguous(shape, 3, 1, rows.data(), positions);
  std::vector<float> out(3 * 4 * 16, 1.0F);
  cache.attend(0, order, queries, out.data());
  EXPECT_LT(relative(out, attention(cache.layer(0), order, queries)), attention_tolerance);
  for (std::size_t i = 0; i < 4 * 16; ++i) EXPECT_EQ(out[i], 0);  // the empty one
  std::vector<float> keys(3 * 2 * 700 * 16, 5.0F);
  std::vector<float> values(keys.size(), 5.0F);
  cache.decompress(0, keys.data(), values.data());
  EXPECT_EQ(keys[(2 * 2 + 0) * 700 * 16], 0);                    // the empty one
  EXPECT_EQ(keys[(1 * 2 + 0) * 700 * 16], given[1].keys[0][0]);  // a sink, raw
  EXPECT_EQ(keys[(1 * 2 + 0) * 700 * 16 + 16], 0);               // after its only token
}

TEST(Grow, ABudgetIsHardAndLosesNothing) {
  constexpr std::uint64_t budget = 200000;
  Grower grown(kivi(4, 64), test::shape(1, 2, 2, 16, Dtype::bf16), {budget});
  CacheManager& cache = grown.cache();
  bool refused = false;
  for (int step = 0; step < 20000 && !refused; ++step) {
    const std::uint64_t tokens = grown.tokens();
    const std::vector<std::byte> before = all_bytes(cache.layer(0), 0);
    try {
      grown.append(3);
    } catch (const BudgetError& error) {
      refused = true;
      EXPECT_NE(std::string(error.what()).find("budget of 200000 bytes"), std::string::npos) << error.what();
      EXPECT_EQ(grown.tokens(), tokens);
      EXPECT_EQ(all_bytes(cache.layer(0), 0), before);
    }
    ASSERT_LE(cache.reserved_bytes(), budget);
  }
  EXPECT_TRUE(refused);
  EXPECT_GT(cache.bytes().total(), budget * 8 / 10);
  cache.clear(0);
  EXPECT_EQ(cache.reserved_bytes(), 0U);
  EXPECT_THROW(grown.prefill(9000), BudgetError);
  EXPECT_EQ(cache.reserved_bytes(), 0U);
  EXPECT_EQ(grown.tokens(), 0U);
}

TEST(Grow, WhatIsWrongIsRefused) {
  const LayerShape shape = test::shape(2, 1, 1, 8);
  Pipeline windowed;
  windowed.select = {{spec("sliding_window"), {8, 1}}};
  CacheManager cache(windowed, std::span(&shape, 1), test::backend());
  EXPECT_THROW(append(cache, 0, Model(shape, 1).draw(1)), InputError);  // it was not made with `decodes`
  CacheManager raw(Pipeline{}, std::span(&shape, 1), test::backend());
  raw.remove(1);
  EXPECT_THROW(raw.fork(1), InputError);
  EXPECT_EQ(raw.add(), 1U);
  std::vector<LayerShape> uneven{test::shape(1, 1, 1, 8), test::shape(2, 1, 1, 8)};
  EXPECT_THROW(CacheManager(Pipeline{}, uneven, test::backend()), InputError);
}

}  // namespace
}  // namespace kvlab
