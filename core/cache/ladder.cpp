#include "core/cache/ladder.hpp"

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

std::optional<NextBlock> next_block(const RungRule& rule, const Role& role, std::uint64_t cut, std::uint64_t tail,
                                    std::uint64_t slots, std::uint64_t gone) {
  // Rung by rung: the block is of the first whose block leaves the tail while the sequence is on it.
  for (std::uint8_t rung = rule.least;; ++rung) {
    const std::uint64_t block = role.block_tokens(rung);
    std::uint64_t length = cut + block + tail + gone;  // at which it does
    if (rung > rule.least) length = std::max(length, rule.above[rung] + 1);
    if (rule.at(length) > rung) continue;
    return length <= slots + gone ? std::optional(NextBlock{rung, block}) : std::nullopt;
  }
}

std::uint64_t role_bytes_on(const Pipeline& pipeline, const Role& role, std::uint8_t rung, std::uint64_t cut,
                            std::uint64_t slots, std::uint64_t held) {
  if (!role.coded()) return slots * role.row_bytes();
  const CodecInstance& codec = role.codecs[rung];
  const std::uint64_t block = role.block_tokens(rung);
  const std::uint64_t sinks = std::min(pipeline.sinks, slots);
  cut = std::max(cut, sinks);
  const auto blocks = [&](std::uint64_t tokens) { return tokens / block * (tokens >= block ? codec.bound(block) : 0); };
  const std::uint64_t coded = cut - sinks;
  const std::uint64_t rest = coded % block > 0 ? codec.bound(coded % block) : 0;
  const std::uint64_t more = slots > cut + pipeline.tail ? (slots - cut - pipeline.tail) / block * block : 0;
  return std::max(blocks(coded) + rest, held) + blocks(more) + (sinks + slots - cut - more) * role.row_bytes();
}

}  // namespace kvlab
