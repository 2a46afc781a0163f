#include "core/pipeline/ladder.hpp"

#include <algorithm>
#include <limits>

namespace kvlab {

std::uint8_t RungRule::at(std::uint64_t length) const {
  const auto after = std::find_if(above.begin() + 1, above.end(), [&](std::uint64_t most) { return length <= most; });
  return std::max(least, static_cast<std::uint8_t>(after - above.begin() - 1));
}

RungRule rung_rule(const Pipeline& pipeline) {
  RungRule rule;
  for (const Rung& rung : pipeline.rungs()) {
    const bool by_bytes = pipeline.bytes_per_sequence > 0 && !rule.above.empty();
    rule.above.push_back(by_bytes ? std::numeric_limits<std::uint64_t>::max() : rung.above_tokens);
  }
  return rule;
}

std::uint8_t recode_floor(const Pipeline& pipeline, std::uint8_t rung) {
  if (pipeline.bytes_per_sequence > 0) return rung;
  while (rung > 0 && !pipeline.ladder[rung].recode) --rung;
  return rung;
}

}  // namespace kvlab
