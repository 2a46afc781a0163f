#include "core/base/nearest.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

namespace kvlab {
namespace {

// Levenshtein distance, one row at a time.
std::size_t edit_distance(std::string_view a, std::string_view b) {
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

}  // namespace

std::string nearest(std::string_view wrong, std::span<const std::string> candidates) {
  const auto best = std::min_element(candidates.begin(), candidates.end(), [&](const auto& a, const auto& b) {
    return edit_distance(wrong, a) < edit_distance(wrong, b);
  });
  return best == candidates.end() ? "" : *best;
}

std::string suggestion(std::string_view wrong, std::span<const std::string> candidates) {
  constexpr std::size_t few = 8;
  if (candidates.empty()) return "; there are none";
  const std::string best = nearest(wrong, candidates);
  const bool near = edit_distance(wrong, best) <= std::max<std::size_t>(2, wrong.size() / 2);
  if (near || candidates.size() > few) return "; the nearest valid name is '" + best + "'";
  return "; valid: " + join(candidates);
}

std::string printable(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    std::size_t length = byte < 0x80U                    ? 1
                         : byte >= 0xF0U && byte < 0xF5U ? 4
                         : byte >= 0xE0U                 ? 3
                         : byte >= 0xC2U                 ? 2
                                                         : 0;
    if (byte >= 0xF5U || i + length > text.size()) length = 0;
    for (std::size_t j = 1; j < length; ++j) {
      if ((static_cast<unsigned char>(text[i + j]) & 0xC0U) != 0x80U) length = 0;
    }
    if (length == 0 || byte < 0x20U || byte == 0x7FU) {
      out += byte == '\n' ? ' ' : '?';
      ++i;
    } else {
      out += text.substr(i, length);
      i += length;
    }
  }
  return out;
}

std::string join(std::span<const std::string> items, std::string_view separator) {
  std::string joined;
  for (const auto& item : items) {
    if (!joined.empty()) joined += separator;
    joined += item;
  }
  return joined;
}

}  // namespace kvlab
