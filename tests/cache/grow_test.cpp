// A cache that grows: against one prefill, forked, of several lengths, under a budget.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <random>

#include "tests/cache/growing.hpp"

namespace kvlab {
namespace {

using namespace test;

// Where the cuts coincide, growing is one prefill: the same bytes, the same attention.
TEST(Grow, EqualsOnePrefillWhereCutsCoincide) {
  Backend& backend = test::backend(2);
  LayerShape shape = test::shape(1, 2, 4, 16, Dtype::bf16);
  for (const auto& [name, pipeline] : pipelines()) {
    for (const std::uint64_t start : {0U, 128U, 384U}) {
      if (name == "low_rank" && start != 0) continue;  // blocks of 300 and 128
      if (!pipeline.select.empty()) continue;          // evicting by blocks is not selecting at once
      if (name.starts_with("recoded")) continue;       // what is encoded twice is not what was encoded once
      for (const std::uint64_t step : {1U, 7U, 128U, 1000U}) {
        SCOPED_TRACE(name + ", from " + std::to_string(start) + " by " + std::to_string(step));
        const std::uint64_t first = start == 0 ? 0 : start + pipeline.sinks + pipeline.tail;
        const std::uint64_t total = 1152 + pipeline.sinks + pipeline.tail;
        Model model(shape, 3);
        Given given;
        const auto keys = model.draw(total, 16, given.keys);
        const auto values = model.draw(total, 16, given.values);
        const KvTensor all_keys = tensor(keys, shape, total, 16);
        const KvTensor all_values = tensor(values, shape, total, 16);
        CacheManager whole(pipeline, std::span(&shape, 1), backend);
        CacheManager grown(pipeline, std::span(&shape, 1), backend);
        const std::uint64_t last = name == "low_rank" ? 900 + pipeline.tail : total;
        whole.prefill(0, {last, all_keys, all_values, {}});
        grown.prefill(0, {first, all_keys, all_values, {}});
        const std::uint32_t sequence = 0;
        for (std::uint64_t done = first; done < last;) {
          const std::uint64_t now = std::min(step, last - done);
          const auto from = [&](KvTensor t) {
            t.base = static_cast<const std::byte*>(t.base) + done * 16 * 2;
            return t;
          };
          grown.append(0, std::span(&sequence, 1), now, from(all_keys), from(all_values));
          done += now;
        }
        const bool same_cuts = name != "low_rank";
        EXPECT_EQ(grown.layer(0).tokens(0), whole.layer(0).tokens(0));
        if (same_cuts) {
          EXPECT_EQ(grown.bytes().total(), whole.bytes().total());
          EXPECT_EQ(all_bytes(grown.layer(0), 0), all_bytes(whole.layer(0), 0));
        }
        const std::vector<float> queries = model.queries(1);
        const std::vector<std::uint32_t> position{static_cast<std::uint32_t>(last)};
        std::vector<float> a(4 * 16);
        std::vector<float> b(4 * 16);
        whole.attend(0, std::span(&sequence, 1), queries.data(), position, a.data());
        grown.attend(0, std::span(&sequence, 1), queries.data(), position, b.data());
        EXPECT_LT(test::relative(a, b), same_cuts ? 1e-6 : 0.1);
      }
    }
  }
}

TEST(Grow, ForksShareWhatTheyHaveInCommon) {
  Backend& backend = test::backend(1);
  LayerShape shape = test::shape(1, 1, 1, 16, Dtype::bf16);
  CacheManager cache(kivi(4, 32), std::span(&shape, 1), backend);
  Model model(shape, 5);
  Given given;
  const auto keys = model.draw(1000, 16, given.keys);
  const auto values = model.draw(1000, 16, given.values);
  cache.prefill(0, 0, {1000, tensor(keys, shape, 1000, 16), tensor(values, shape, 1000, 16), {}});
  const std::uint64_t one = cache.bytes().total();
  const std::uint32_t fork = cache.fork(0);
  EXPECT_EQ(cache.bytes().total(), one);
  Given more;
  const auto next_keys = model.draw(1, 16, more.keys);
  const auto next_values = model.draw(1, 16, more.values);
  const std::vector<std::byte> before = all_bytes(cache.layer(0), 0);
  cache.append(0, std::span(&fork, 1), 1, tensor(next_keys, shape, 1, 16), tensor(next_values, shape, 1, 16));
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
  Backend& backend = test::backend(2);
  LayerShape shape = test::shape(3, 2, 4, 16, Dtype::f32);
  CacheManager cache(kivi(2, 9), std::span(&shape, 1), backend);
  Model model(shape, 6);
  std::vector<Given> given(3);
  const std::vector<std::uint64_t> lengths{700, 1, 0};
  for (std::uint32_t i = 0; i < 3; ++i) {
    const auto keys = model.draw(lengths[i], 16, given[i].keys);
    const auto values = model.draw(lengths[i], 16, given[i].values);
    cache.prefill(0, i, {lengths[i], tensor(keys, shape, lengths[i], 16), tensor(values, shape, lengths[i], 16), {}});
  }
  const std::vector<std::uint32_t> order{2, 0, 1};
  const std::vector<std::uint32_t> positions{0, 699, 5};
  std::vector<float> queries;
  for (int i = 0; i < 3; ++i) {
    const auto own = model.queries(1);
    queries.insert(queries.end(), own.begin(), own.end());
  }
  std::vector<float> out(3 * 4 * 16, 1.0F);
  cache.attend(0, order, queries.data(), positions, out.data());
  for (std::size_t i = 0; i < 3; ++i) {
    const std::vector<float> own(queries.begin() + static_cast<std::ptrdiff_t>(i * 64),
                                 queries.begin() + static_cast<std::ptrdiff_t>((i + 1) * 64));
    const std::vector<float> got(out.begin() + static_cast<std::ptrdiff_t>(i * 64),
                                 out.begin() + static_cast<std::ptrdiff_t>((i + 1) * 64));
    const auto expected = reference(cache.layer(0), order[i], own, {positions[i]});
    if (order[i] == 2) {
      for (const float x : got) EXPECT_EQ(x, 0);
    } else {
      EXPECT_LT(test::relative(got, expected), test::attention_tolerance);
    }
  }
  std::vector<float> keys(3 * 2 * 700 * 16, 5.0F);
  std::vector<float> values(keys.size(), 5.0F);
  cache.decompress(0, keys.data(), values.data());
  EXPECT_EQ(keys[(2 * 2 + 0) * 700 * 16], 0);                    // the empty one
  EXPECT_EQ(keys[(1 * 2 + 0) * 700 * 16], given[1].keys[0][0]);  // a sink, raw
  EXPECT_EQ(keys[(1 * 2 + 0) * 700 * 16 + 16], 0);               // after its only token
}

TEST(Grow, ABudgetIsHardAndLosesNothing) {
  Backend& backend = test::backend(2);
  LayerShape shape = test::shape(1, 2, 2, 16, Dtype::bf16);
  constexpr std::uint64_t budget = 200000;
  CacheManager cache(kivi(4, 64), std::span(&shape, 1), backend, {budget});
  Model model(shape, 8);
  const std::uint32_t sequence = 0;
  bool refused = false;
  for (int step = 0; step < 20000 && !refused; ++step) {
    Given row;
    const auto keys = model.draw(3, 16, row.keys);
    const auto values = model.draw(3, 16, row.values);
    const std::uint64_t tokens = cache.layer(0).tokens(0);
    const std::vector<std::byte> before = all_bytes(cache.layer(0), 0);
    try {
      cache.append(0, std::span(&sequence, 1), 3, tensor(keys, shape, 3, 16), tensor(values, shape, 3, 16));
    } catch (const BudgetError& error) {
      refused = true;
      EXPECT_NE(std::string(error.what()).find("budget of 200000 bytes"), std::string::npos) << error.what();
      EXPECT_EQ(cache.layer(0).tokens(0), tokens);
      EXPECT_EQ(all_bytes(cache.layer(0), 0), before);
    }
    ASSERT_LE(cache.reserved_bytes(), budget);
  }
  EXPECT_TRUE(refused);
  EXPECT_GT(cache.bytes().total(), budget * 8 / 10);
  cache.clear(0);
  EXPECT_EQ(cache.reserved_bytes(), 0U);
  Given rows;
  const auto keys = model.draw(9000, 16, rows.keys);
  const auto values = model.draw(9000, 16, rows.values);
  const Prefill large{9000, tensor(keys, shape, 9000, 16), tensor(values, shape, 9000, 16), {}};
  EXPECT_THROW(cache.prefill(0, large), BudgetError);
  EXPECT_EQ(cache.reserved_bytes(), 0U);
  EXPECT_EQ(cache.layer(0).tokens(0), 0U);
}

TEST(Grow, WhatIsWrongIsRefused) {
  Backend& backend = test::backend(1);
  LayerShape shape = test::shape(2, 1, 1, 8);
  Pipeline windowed;
  windowed.select = {{spec("sliding_window"), {8, 1}}};
  CacheManager cache(windowed, std::span(&shape, 1), backend);
  const std::vector<float> row(8);
  const KvTensor one{row.data(), 8, 8, 8};
  const std::vector<std::uint32_t> first{0};
  EXPECT_THROW(cache.append(0, first, 1, one, one), InputError);
  CacheManager raw(Pipeline{}, std::span(&shape, 1), backend);
  const std::vector<std::uint32_t> twice{0, 0};
  const std::vector<std::uint32_t> beyond{2};
  EXPECT_THROW(raw.append(0, twice, 1, one, one), InputError);
  EXPECT_THROW(raw.append(0, beyond, 1, one, one), InputError);
  std::vector<float> out(16);
  const std::vector<std::uint32_t> three{0, 1, 2};
  const std::vector<std::uint32_t> both{0, 1};
  EXPECT_THROW(raw.attend(0, both, row.data(), three, out.data()), InputError);
  EXPECT_THROW(raw.attend(0, {}, row.data(), three, out.data()), InputError);
  raw.remove(1);
  EXPECT_THROW(raw.fork(1), InputError);
  EXPECT_EQ(raw.add(), 1U);
  std::vector<LayerShape> uneven{test::shape(1, 1, 1, 8), test::shape(2, 1, 1, 8)};
  EXPECT_THROW(CacheManager(Pipeline{}, uneven, test::backend()), InputError);
}

}  // namespace
}  // namespace kvlab
