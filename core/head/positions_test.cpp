#include "core/head/positions.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/backend/cpu/cpu_backend.hpp"

namespace kvlab {
namespace {

TEST(Positions, AreStoredInTheSmallerForm) {
  const std::vector<std::uint32_t> all{0, 1, 2, 3};
  EXPECT_EQ(Positions::words_for(all, 4), 0U);
  const std::vector<std::uint32_t> window{0, 1, 96, 97, 98, 99};
  EXPECT_EQ(Positions::words_for(window, 100), 4U);  // two runs of 8 bytes, against 24
  const std::vector<std::uint32_t> scattered{0, 2, 4, 6};
  EXPECT_EQ(Positions::words_for(scattered, 100), 4U);  // 4 bytes each, against 32
  const std::vector<std::uint32_t> even{1, 2, 5, 6};
  EXPECT_EQ(Positions::words_for(even, 100), 4U);  // runs are not less: a list
  EXPECT_EQ(Positions::words_for({}, 100), 0U);
}

TEST(Positions, EveryRangeReadsBack) {
  CpuBackend backend(1);
  const auto run = [&](Work& work, Arena& arena) {
    Work* one = &work;
    backend.run(std::span(&one, 1), arena);
    work.clear();
  };
  std::mt19937 engine(5);
  for (int round = 0; round < 300; ++round) {
    const std::uint32_t total = 1 + static_cast<std::uint32_t>(engine() % 60);
    const bool runs = round % 2 == 0;
    std::vector<std::uint32_t> kept;
    bool inside = false;
    for (std::uint32_t token = 0; token < total; ++token) {
      if (!runs || engine() % 8 == 0) inside = engine() % 2 == 0;
      if (inside) kept.push_back(token);
    }
    Arena arena(backend.memory());
    Promise promise;
    Work work;
    Positions positions(kept, total, arena, promise, work);
    run(work, arena);
    ASSERT_EQ(arena.requested(), 4 * Positions::words_for(kept, total));
    // More come, side by side or after a gap, to one of two that shared the words.
    const Positions before = positions;
    std::uint32_t next = total;
    for (std::uint32_t more = 0; more < engine() % 4; ++more) {
      const auto count = static_cast<std::uint32_t>(engine() % 5);
      positions.append(next, count, arena, promise, work);
      run(work, arena);
      for (std::uint32_t i = 0; i < count; ++i) kept.push_back(next + i);
      next += count;
    }
    std::vector<std::uint32_t> shared;
    before.write_out(shared);
    ASSERT_TRUE(std::equal(shared.begin(), shared.end(), kept.begin())) << "the one that did not grow";
    ASSERT_EQ(positions.tokens(), kept.size());
    std::vector<std::uint32_t> scratch;
    for (std::size_t first = 0; first < kept.size(); ++first) {
      for (std::size_t count = 1; first + count <= kept.size(); ++count) {
        const auto range = positions.view().range(first, count, scratch);
        for (std::size_t i = 0; i < count; ++i) {
          const std::uint32_t got = range.list != nullptr ? range.list[i] : range.first + static_cast<std::uint32_t>(i);
          ASSERT_EQ(got, kept[first + i]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace kvlab
