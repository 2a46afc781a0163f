#include "core/head/layout.hpp"

#include <algorithm>

namespace kvlab {
namespace {

constexpr std::uint64_t most_rows = 256;  // of a raw chunk

// A chunk of the slots [first, slots), as many as it has a place for. Returns where the next one begins.
std::uint64_t add_chunk(std::uint64_t first, std::uint64_t slots, std::uint64_t capacity, Layout& layout) {
  const std::uint64_t tokens = std::min(capacity, slots - first);
  layout.chunks.push_back({first, tokens, capacity});
  return first + tokens;
}

// Of a role with codecs, those of the slots [first, slots): inside the blocks of the layout, then where blocks of
// `next` tokens will be cut.
void add_chunks(const LayoutRule& rule, std::uint64_t first, std::uint64_t slots, std::uint64_t next, Layout& layout) {
  auto block = layout.blocks.begin();
  std::uint64_t begin = layout.from;  // of *block
  while (first < slots) {
    if (first < std::min(rule.sinks, layout.from)) {
      first = add_chunk(first, slots, rule.sinks - first, layout);
      continue;
    }
    for (; block != layout.blocks.end() && begin + block->tokens <= first; ++block) begin += block->tokens;
    const std::uint64_t end =
        block != layout.blocks.end() ? begin + block->tokens : first + next - (first - layout.cut) % next;
    first = add_chunk(first, slots, std::min(most_rows, end - first), layout);
  }
}

}  // namespace

// Rung by rung: a block is of the first whose block leaves the tail while the sequence is on it.
std::optional<BlockPlace> next_block(const LayoutRule& rule, std::uint64_t cut, std::uint64_t slots,
                                     std::uint64_t gone) {
  for (std::uint8_t rung = rule.rungs.least;; ++rung) {
    const std::uint64_t block = rule.block_tokens[rung];
    // The length at which it does.
    std::uint64_t length = cut + block + rule.tail + gone;
    if (rung > rule.rungs.least) length = std::max(length, rule.rungs.above[rung] + 1);
    if (rule.rungs.at(length) > rung) continue;
    return length <= slots + gone ? std::optional(BlockPlace{rung, block}) : std::nullopt;
  }
}

Layout prefill_layout(const LayoutRule& rule, std::uint64_t slots, std::uint64_t total) {
  Layout layout;
  if (rule.is_raw()) {
    if (slots > 0) layout.chunks.push_back({0, slots, slots});
    return layout;
  }
  const std::uint64_t sinks = std::min(rule.sinks, slots);
  const std::uint64_t end = slots - std::min(rule.tail, slots - sinks);  // of what is encoded
  layout.from = layout.cut = sinks;
  if (sinks > 0) layout.chunks.push_back({0, sinks, rule.sinks});
  while (const auto next = next_block(rule, layout.cut, slots, total - slots)) {
    layout.blocks.push_back(*next);
    layout.cut += next->tokens;
  }
  const std::uint8_t rung = rule.rungs.at(total);
  if (layout.cut < end) layout.blocks.push_back({rung, end - layout.cut});
  layout.cut = end;
  add_chunks(rule, end, slots, rule.block_tokens[rung], layout);
  return layout;
}

void growth_layout(const LayoutRule& rule, std::uint64_t cut, std::uint64_t open, std::uint64_t slots,
                   std::uint64_t total, Layout& layout) {
  layout.from = layout.cut = 0;
  layout.blocks.clear();
  layout.chunks.clear();
  if (rule.is_raw()) {
    while (open < slots) open = add_chunk(open, slots, most_rows, layout);
    return;
  }
  layout.from = layout.cut = std::max(cut, std::min(rule.sinks, slots));
  while (const auto next = next_block(rule, layout.cut, slots, total - slots)) {
    layout.blocks.push_back(*next);
    layout.cut += next->tokens;
  }
  const std::uint64_t first = layout.blocks.empty() ? open : std::min(open, layout.from);
  add_chunks(rule, first, slots, rule.block_tokens[rule.rungs.at(total)], layout);
}

}  // namespace kvlab
