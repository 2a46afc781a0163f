#include "core/pipeline/pipeline.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/base/error.hpp"

namespace kvlab {
namespace {

constexpr std::uint64_t most_kept = std::uint64_t{1} << 31;

}  // namespace

std::uint64_t TokenBudget::of(std::uint64_t present) const {
  if (tokens) return std::min(present, *tokens);
  const double wanted = std::floor(keep * static_cast<double>(present) + 0.5);
  return std::min(present, std::max<std::uint64_t>(1, static_cast<std::uint64_t>(wanted)));
}

void Pipeline::check() const {
  if (sinks > most_kept || tail > most_kept) {
    throw InputError("sinks are " + std::to_string(sinks) + " and tail is " + std::to_string(tail) +
                     "; valid: 0 .. 2^31 each");
  }
  for (const auto& step : select) {
    if (!step.budget.tokens && !(step.budget.keep > 0 && step.budget.keep <= 1)) {
      throw InputError("keep is " + text_of(step.budget.keep) + "; valid: above 0 and at most 1");
    }
  }
  if (!ladder.empty() && (keys || values)) {
    throw InputError("a pipeline has keys and values, or a ladder in their place, and not both");
  }
  if (ladder.size() > most_rungs) throw InputError("a ladder has at most " + std::to_string(most_rungs) + " rungs");
  for (std::size_t i = 0; i < ladder.size(); ++i) {
    const Rung& rung = ladder[i];
    if (rung.keys.has_value() != ladder[0].keys.has_value() ||
        rung.values.has_value() != ladder[0].values.has_value()) {
      throw InputError("a role that has a codec on one rung has one on all");
    }
    if (bytes_per_sequence == 0 && (i == 0 ? rung.above_tokens > 0 : rung.above_tokens <= ladder[i - 1].above_tokens)) {
      throw InputError("above_tokens of rung " + std::to_string(i) + " is " + std::to_string(rung.above_tokens) +
                       "; they ascend from 0");
    }
  }
}

std::vector<Rung> Pipeline::rungs() const {
  if (!ladder.empty()) return ladder;
  return {Rung{0, keys, values, false}};
}

std::uint64_t Pipeline::kept_of(std::uint64_t tokens) const {
  std::uint64_t present = tokens;
  for (const auto& step : select) {
    const std::uint64_t budget = step.budget.of(present);
    if (budget < std::min(present, sinks + tail)) {
      throw InputError("a budget of " + std::to_string(budget) + " of " + std::to_string(present) +
                       " tokens is below sinks + tail = " + std::to_string(sinks + tail));
    }
    present = budget;
  }
  return present;
}

void select_highest(std::span<const float> scores, std::uint64_t sinks, std::uint64_t tail, std::uint64_t budget,
                    std::vector<std::uint32_t>& kept) {
  const std::uint64_t present = scores.size();
  kept.resize(present);
  std::iota(kept.begin(), kept.end(), 0U);
  if (budget >= present) return;
  const auto better = [&](std::uint32_t a, std::uint32_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  };
  const auto middle = kept.begin() + static_cast<std::ptrdiff_t>(sinks);
  const auto middle_end = kept.end() - static_cast<std::ptrdiff_t>(tail);
  const auto cut = middle + static_cast<std::ptrdiff_t>(budget - sinks - tail);
  std::nth_element(middle, cut, middle_end, better);
  std::sort(middle, cut);
  kept.erase(cut, middle_end);
}

}  // namespace kvlab
