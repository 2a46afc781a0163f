// What a cache does with its tokens: selectors in order, each with its token budget, then one codec per role (keys,
// values). This is the pipeline of an experiment file, resolved: methods found, parameters typed.
//
// Two budgets are not the same: a TokenBudget says how many tokens a selector leaves, an arena's budget
// (core/memory/arena.hpp) how many bytes a cache may take.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/method/instance.hpp"

namespace kvlab {

// How many tokens a selector leaves: `tokens`, or a fraction `keep` of those present.
struct TokenBudget {
  std::optional<std::uint64_t> tokens;
  double keep = 1;  // (0, 1], where `tokens` is not given

  // Of `present` tokens: min(present, tokens), or min(present, max(1, floor(keep * present + 0.5))).
  [[nodiscard]] std::uint64_t of(std::uint64_t present) const;
};

struct SelectStep {
  MethodSpec selector;
  TokenBudget budget;
};

inline constexpr std::size_t most_rungs = 16;

// One codec per role; a role with none stays raw.
struct Rung {
  std::uint64_t above_tokens = 0;  // it is for sequences of more tokens than this: 0 in the first, then ascending
  std::optional<MethodSpec> keys;
  std::optional<MethodSpec> values;
  bool recode = false;  // older blocks of a sequence that has come here are recoded, a few at each append
};

struct Pipeline {
  std::uint64_t sinks = 0;  // the first tokens: always kept, stored raw
  std::uint64_t tail = 0;   // the last tokens: likewise
  std::vector<SelectStep> select;
  std::optional<MethodSpec> keys;    // none: stays raw
  std::optional<MethodSpec> values;  // none: stays raw
  // In place of keys and values: codecs that change as a sequence grows, at most most_rungs of them. A role is raw on
  // all rungs or on none.
  std::vector<Rung> ladder;
  // Above 0: a sequence is on the first (mildest) rung with which it takes no more bytes than this, sinks, tail and
  // positions included. When it would take more it goes to the next rung and is recoded. Of all layers together: each
  // has its share, by what a token takes in it.
  std::uint64_t bytes_per_sequence = 0;
  // Blocks are encoded by a background thread while queries read the raw rows.
  bool async = false;

  // Throws InputError for sinks, a tail, a token budget or a ladder that are none. Methods are checked when instances
  // are made of them.
  void check() const;
  // The rungs: the ladder, or the one of keys and values.
  [[nodiscard]] std::vector<Rung> rungs() const;

  // Tokens that a KV head keeps of a prefill of so many. Throws InputError where a token budget is below sinks + tail.
  [[nodiscard]] std::uint64_t kept_of(std::uint64_t tokens) const;
};

// Indexes of the tokens that stay, ascending: the first `sinks`, the last `tail`, and of those between them the
// highest scores until `budget` are kept; of equal scores the earlier. Needs budget >= min(scores.size(), sinks +
// tail).
void select_highest(std::span<const float> scores, std::uint64_t sinks, std::uint64_t tail, std::uint64_t budget,
                    std::vector<std::uint32_t>& kept);

}  // namespace kvlab
