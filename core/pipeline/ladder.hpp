// Which rung of a pipeline's ladder a sequence is on, and its blocks with it.
//
// A block is of the rung that its sequence is on when the block leaves the tail: however the tokens came, one by one or
// in a prefill, blocks are the same where they are cut the same.
#pragma once

#include <cstdint>
#include <vector>

#include "core/pipeline/pipeline.hpp"

namespace kvlab {

struct RungRule {
  std::vector<std::uint64_t> above;  // per rung: it holds for lengths above this; ascending from 0
  std::uint8_t least = 0;            // no block is of an earlier one: those are recoded

  // Of a sequence of that many tokens.
  [[nodiscard]] std::uint8_t at(std::uint64_t length) const;
};

// Where a ladder goes by bytes the rung is not a matter of length: the first everywhere, with `least` to be set.
RungRule rung_rule(const Pipeline& pipeline);
// The rung that a sequence's older blocks are recoded to once it is on `rung`.
std::uint8_t recode_floor(const Pipeline& pipeline, std::uint8_t rung);

}  // namespace kvlab
