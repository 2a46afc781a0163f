#include "core/base/nearest.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

namespace kvlab {
namespace {

// Levenshtein distance, one row at a time. Of what is longer than any name the beginning only.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  constexpr std::size_t most = 128;
  a = a.substr(0, most);
  b = b.substr(0, most);
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

struct Closest {
  std::string name;
  std::size_t distance = std::numeric_limits<std::size_t>::max();
};
Closest closest(std::string_view wrong, std::span<const std::string> candidates) {
  Closest best;
  for (const auto& candidate : candidates) {
    const std::size_t distance = edit_distance(wrong, candidate);
    if (distance < best.distance) best = {candidate, distance};
  }
  return best;
}

}  // namespace

std::string nearest(std::string_view wrong, std::span<const std::string> candidates) {
  return closest(wrong, candidates).name;
}

std::string suggestion(std::string_view wrong, std::span<const std::string> candidates) {
  constexpr std::size_t few = 8;
  if (candidates.empty()) return "; there are none";
  const Closest best = closest(wrong, candidates);
  const bool near = best.distance <= std::max<std::size_t>(2, wrong.size() / 2);
  if (near || candidates.size() > few) return "; the nearest valid name is '" + best.name + "'";
  return "; valid: " + join(candidates);
}

std::string join(std::span<const std::string> items, std::string_view separator) {
  std::string joined;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) joined += separator;
    joined += items[i];
  }
  return joined;
}

}  // namespace kvlab
