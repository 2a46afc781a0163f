// Which codec of a pipeline's ladder a block gets.
//
// A block is of the rung that its sequence is on when the block leaves the tail: however the tokens came, one by one or
// in a prefill, blocks are the same where they are cut the same.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/cache/role.hpp"

namespace kvlab {

struct RungRule {
  std::vector<std::uint64_t> above;  // a rung: lengths above it; ascending from 0
  std::uint8_t least = 0;            // no block is of an earlier one: those are recoded

  [[nodiscard]] std::uint8_t at(std::uint64_t length) const;
};

// Where a ladder goes by bytes the rung is not a matter of length: the first everywhere, with `least` to be set.
RungRule rung_rule(const Pipeline& pipeline);
// The rung that a sequence's older blocks are recoded to once it is on `rung`.
std::uint8_t recode_floor(const Pipeline& pipeline, std::uint8_t rung);

struct NextBlock {
  std::uint8_t rung;
  std::uint64_t tokens;
};
// The next block at `cut`, if it may be cut by the time that the head has `slots` tokens. `gone`: tokens that the
// sequence had beyond those.
std::optional<NextBlock> next_block(const RungRule& rule, const Role& role, std::uint64_t cut, std::uint64_t tail,
                                    std::uint64_t slots, std::uint64_t gone);

// Bytes of one role of a head with this many slots, `cut` of them sinks and blocks up to now, were all blocks of that
// rung and whole; those up to now at least `held`. Cutting goes on until the tail is left.
std::uint64_t role_bytes_on(const Pipeline& pipeline, const Role& role, std::uint8_t rung, std::uint64_t cut,
                            std::uint64_t slots, std::uint64_t held = 0);

}  // namespace kvlab
