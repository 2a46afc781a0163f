// Which rung of a pipeline's ladder a sequence is on, as a pure function of its length.
//
// A block is of the rung that its sequence is on at the moment when the block leaves the tail. So blocks are the same
// wherever they are cut the same, whether tokens came one by one or in a prefill.
#pragma once

#include <cstdint>
#include <vector>

#include "core/pipeline/pipeline.hpp"

namespace kvlab {

struct RungRule {
  std::vector<std::uint64_t> above;  // per rung, ascending from 0: it is for lengths (tokens) above this
  std::uint8_t least = 0;            // the earliest rung that a block may be of; blocks of earlier ones are recoded

  // The rung of a sequence of so many tokens.
  [[nodiscard]] std::uint8_t at(std::uint64_t length) const;
};

// Of a ladder by bytes the rung does not depend on the length: at() is then always `least`, which the cache sets.
RungRule rung_rule(const Pipeline& pipeline);
// RungRule::least of a sequence on `rung`: the rung that its older blocks are recoded to, 0 where they stay.
std::uint8_t recode_floor(const Pipeline& pipeline, std::uint8_t rung);

}  // namespace kvlab
