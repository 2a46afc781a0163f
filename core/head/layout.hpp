// The one rule of what stands where in one role of a head, as a pure function of counts: what is raw and what is a
// block, where blocks are cut and where raw chunks end. Prefill, append and eviction build what it says, and what they
// may need of a budget is the sum over it.
//
//   slots   0 ........ S ............ cut .......................... n
//           | sinks    | blocks ..... | raw chunk | raw chunk, open  |
//                                     |-----------------|  due: the next block, once `tail` slots lie behind it
//
// - Of a role with codecs the first S slots (sinks) and the last `tail` ones stay raw.
// - A block is cut as soon as `tail` slots lie behind it. Its codec is that of the rung that the sequence is on then.
// - The end of a prefill leaves a short block before its tail; cutting starts again behind it.
// - Raw chunks hold at most 256 rows and end where blocks are cut, so that encoding frees whole chunks and moves no
// row.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/pipeline/ladder.hpp"

namespace kvlab {

struct LayoutRule {
  std::span<const std::uint64_t> block_tokens;  // of each rung's codec; none: the role is raw
  const RungRule& rungs;
  std::uint64_t sinks;
  std::uint64_t tail;

  [[nodiscard]] bool is_raw() const { return block_tokens.empty(); }
};

struct BlockPlace {
  std::uint8_t rung;
  std::uint64_t tokens;
};

struct ChunkPlace {
  std::uint64_t first;  // slot
  std::uint64_t tokens;
  std::uint64_t capacity;  // tokens that it may grow to
};

struct Layout {
  std::uint64_t from = 0;          // the slot where `blocks` begin
  std::vector<BlockPlace> blocks;  // side by side
  std::vector<ChunkPlace> chunks;  // in order; what is not among them stays as it is
  std::uint64_t cut = 0;           // behind the blocks
};

// What stands after a prefill of `total` tokens, of which `slots` were kept.
Layout prefill_layout(const LayoutRule& rule, std::uint64_t slots, std::uint64_t total);

// What a growing role comes to, of which all before `cut` stays: the blocks that are due, now that there are `slots`
// slots of `total` tokens that the sequence was given; and raw chunks for all slots from `open` on, where the last
// chunk begins, or, where blocks are due, from the cut on: the blocks are made of the chunks in their places. It is
// written to `layout`, whose memory is used again: this is asked for each head at each token.
void growth_layout(const LayoutRule& rule, std::uint64_t cut, std::uint64_t open, std::uint64_t slots,
                   std::uint64_t total, Layout& layout);

// The next block at `cut`, if it is due. `gone`: tokens that the sequence was given beyond the slots.
std::optional<BlockPlace> next_block(const LayoutRule& rule, std::uint64_t cut, std::uint64_t slots,
                                     std::uint64_t gone);

}  // namespace kvlab
