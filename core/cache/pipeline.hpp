// What a cache does with the tokens of a prefill: selectors in order, each with its budget, then a codec a role. This
// is the pipeline of an experiment file, resolved: methods found, parameters typed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/method/instance.hpp"

namespace kvlab {

// How many tokens a selector leaves: `tokens`, or a fraction `keep` of those present.
struct Budget {
  std::optional<std::uint64_t> tokens;
  double keep = 1;  // (0, 1], where `tokens` is not given

  // Of `present` tokens: min(present, tokens), or min(present, max(1, floor(keep * present + 0.5))).
  [[nodiscard]] std::uint64_t of(std::uint64_t present) const;
};

struct SelectStep {
  MethodSpec selector;
  Budget budget;
};

struct Pipeline {
  std::uint64_t sinks = 0;  // the first tokens: always kept, stored raw
  std::uint64_t tail = 0;   // the last tokens: likewise
  std::vector<SelectStep> select;
  std::optional<MethodSpec> keys;    // none: stays raw
  std::optional<MethodSpec> values;  // none: stays raw

  // Tokens that a KV head keeps of a prefill. Throws InputError where a budget is below sinks + tail.
  [[nodiscard]] std::uint64_t kept_of(std::uint64_t tokens) const;
};

// Indexes of the tokens that stay, ascending: the first `sinks`, the last `tail`, and of those between them the
// highest scores until `budget` are kept; of equal scores the earlier. Needs budget >= min(scores.size(), sinks +
// tail).
void select_highest(std::span<const float> scores, std::uint64_t sinks, std::uint64_t tail, std::uint64_t budget,
                    std::vector<std::uint32_t>& kept);

}  // namespace kvlab
