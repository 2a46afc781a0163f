// The rule of what stands where, over thousands of random lives of one role: however its tokens come, blocks are cut at
// the same slots, chunks end where blocks are cut, and nothing overlaps or is missing.
#include "core/head/layout.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace kvlab {
namespace {

// What a role holds, by the layouts that it was given.
struct Standing {
  std::vector<std::pair<std::uint64_t, BlockPlace>> blocks;  // by first slot
  std::vector<ChunkPlace> chunks;
  std::uint64_t cut = 0;
  std::uint64_t slots = 0;

  void take(const Layout& layout, std::uint64_t all) {
    std::uint64_t first = layout.from;
    for (const BlockPlace& block : layout.blocks) {
      blocks.emplace_back(first, block);
      first += block.tokens;
    }
    if (!layout.chunks.empty()) {
      std::erase_if(chunks, [&](const ChunkPlace& c) { return c.first >= layout.chunks.front().first; });
      chunks.insert(chunks.end(), layout.chunks.begin(), layout.chunks.end());
    }
    cut = layout.cut;
    slots = all;
    std::erase_if(chunks, [&](const ChunkPlace& c) {
      return !blocks.empty() && c.first >= blocks.front().first && c.first < cut;
    });
  }
  [[nodiscard]] std::uint64_t open() const {
    return !chunks.empty() && chunks.back().tokens < chunks.back().capacity ? chunks.back().first : slots;
  }
};

void expect_whole(const LayoutRule& rule, const Standing& standing) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> all;  // first, end
  for (const auto& [first, block] : standing.blocks) all.emplace_back(first, first + block.tokens);
  for (const auto& chunk : standing.chunks) {
    ASSERT_LE(chunk.tokens, chunk.capacity);
    ASSERT_GT(chunk.tokens, 0U);
    all.emplace_back(chunk.first, chunk.first + chunk.tokens);
  }
  std::sort(all.begin(), all.end());
  std::uint64_t next = 0;
  for (const auto& [first, end] : all) {
    ASSERT_EQ(first, next);
    next = end;
  }
  ASSERT_EQ(next, standing.slots);
  if (rule.is_raw()) return;

  for (const auto& [first, block] : standing.blocks) {
    ASSERT_GE(first, std::min(rule.sinks, standing.slots));
    ASSERT_LE(first + block.tokens + rule.tail, standing.slots);
    ASSERT_LE(block.tokens, rule.block_tokens[block.rung]);
  }
}

struct Drawn {
  std::vector<std::uint64_t> blocks;
  RungRule rungs;
  std::uint64_t sinks;
  std::uint64_t tail;
  [[nodiscard]] LayoutRule rule() const { return {blocks, rungs, sinks, tail}; }
};

Drawn draw(std::mt19937_64& engine) {
  Drawn drawn;
  const std::size_t rungs = engine() % 4;  // 0: raw
  for (std::size_t i = 0; i < rungs; ++i) drawn.blocks.push_back(1 + engine() % 300);
  for (std::size_t i = 0; i < std::max<std::size_t>(1, rungs); ++i) {
    drawn.rungs.above.push_back(i == 0 ? 0 : drawn.rungs.above.back() + 1 + engine() % 400);
  }
  drawn.sinks = engine() % 3 == 0 ? engine() % 40 : 0;
  drawn.tail = engine() % 3 == 0 ? 0 : engine() % 600;
  return drawn;
}

TEST(Layout, StandsWholeThroughRandomLives) {
  std::mt19937_64 engine(17);
  for (int life = 0; life < 2000; ++life) {
    const Drawn drawn = draw(engine);
    const LayoutRule rule = drawn.rule();
    Standing standing;
    const std::uint64_t prefill = engine() % 2 == 0 ? 0 : engine() % 1500;
    if (prefill > 0) {
      standing.take(prefill_layout(rule, prefill, prefill), prefill);
      expect_whole(rule, standing);
      ASSERT_FALSE(testing::Test::HasFatalFailure()) << "life " << life;
    }
    Layout layout;
    for (int step = 0; step < 20; ++step) {
      const std::uint64_t slots = standing.slots + 1 + engine() % (engine() % 4 == 0 ? 700 : 5);
      growth_layout(rule, standing.cut, standing.open(), slots, slots, layout);
      standing.take(layout, slots);
      expect_whole(rule, standing);
      ASSERT_FALSE(testing::Test::HasFatalFailure()) << "life " << life << " step " << step;
    }
  }
}

// One by one, many at once or in a prefill that ends at a cut: the same blocks.
TEST(Layout, BlocksAreCutAtTheSameSlotsHoweverTokensCome) {
  std::mt19937_64 engine(18);
  for (int life = 0; life < 500; ++life) {
    const Drawn drawn = draw(engine);
    if (drawn.blocks.empty()) continue;
    const LayoutRule rule = drawn.rule();
    const std::uint64_t all = 1 + engine() % 1500;
    Standing single;
    Standing steps;
    Layout layout;
    while (single.slots < all) {
      growth_layout(rule, single.cut, single.open(), single.slots + 1, single.slots + 1, layout);
      single.take(layout, single.slots + 1);
    }
    while (steps.slots < all) {
      const std::uint64_t slots = std::min(all, steps.slots + 1 + engine() % 400);
      growth_layout(rule, steps.cut, steps.open(), slots, slots, layout);
      steps.take(layout, slots);
    }
    const Layout once = prefill_layout(rule, all, all);
    ASSERT_EQ(single.cut, steps.cut) << life;
    ASSERT_EQ(single.blocks.size(), steps.blocks.size()) << life;
    ASSERT_GE(once.blocks.size(), single.blocks.size()) << life;  // and a short one
    for (std::size_t i = 0; i < single.blocks.size(); ++i) {
      ASSERT_EQ(single.blocks[i].first, steps.blocks[i].first);
      ASSERT_EQ(single.blocks[i].second.rung, steps.blocks[i].second.rung);
      ASSERT_EQ(single.blocks[i].second.tokens, once.blocks[i].tokens);
      ASSERT_EQ(single.blocks[i].second.rung, once.blocks[i].rung);
    }
  }
}

// sinks 3, blocks of 4, tail 2, 14 tokens: drawn out in the header.
TEST(Layout, OfOneExample) {
  const std::vector<std::uint64_t> four{4};
  const RungRule rungs{{0}, 0};
  const LayoutRule rule{four, rungs, 3, 2};
  const Layout prefill = prefill_layout(rule, 14, 14);
  ASSERT_EQ(prefill.blocks.size(), 3U);
  EXPECT_EQ(prefill.blocks[0].tokens, 4U);
  EXPECT_EQ(prefill.blocks[1].tokens, 4U);
  EXPECT_EQ(prefill.blocks[2].tokens, 1U);  // the short one before the tail
  EXPECT_EQ(prefill.cut, 12U);
  ASSERT_EQ(prefill.chunks.size(), 2U);
  EXPECT_EQ(prefill.chunks[0].capacity, 3U);  // the sinks
  EXPECT_EQ(prefill.chunks[1].first, 12U);    // the tail, which ends at the next cut
  EXPECT_EQ(prefill.chunks[1].tokens, 2U);
  EXPECT_EQ(prefill.chunks[1].capacity, 4U);
  Layout more;
  growth_layout(rule, 12, 12, 15, 15, more);
  EXPECT_TRUE(more.blocks.empty());
  ASSERT_EQ(more.chunks.size(), 1U);
  EXPECT_EQ(more.chunks[0].tokens, 3U);  // the same chunk
  growth_layout(rule, 12, 12, 18, 18, more);
  ASSERT_EQ(more.blocks.size(), 1U);  // 12 .. 15, for 16 and 17 lie behind it
  EXPECT_EQ(more.cut, 16U);
}

}  // namespace
}  // namespace kvlab
