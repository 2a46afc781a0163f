#include "results/failures.hpp"

#include <algorithm>
#include <map>
#include <vector>

#include "core/base/text.hpp"
#include "results/schema.hpp"

namespace kvlab {
namespace {

struct Group {
  std::string first;  // of its reasons
  std::size_t count = 0;
  bool differ = false;  // in their numbers
};

std::string without_numbers(const std::string& text) {
  std::string bare;
  for (const char c : text) {
    if (c < '0' || c > '9') bare += c;
  }
  return bare;
}

}  // namespace

std::string failures_of(const Table& cells) {
  constexpr std::size_t most_lines = 5;
  constexpr std::size_t most_bytes = 300;
  const Column* status = cells.find("status");
  const Column* reason = cells.find("reason");
  if (status == nullptr || reason == nullptr) return "";
  std::map<std::string, Group> by_reason;
  std::size_t failed = 0;
  for (std::size_t i = 0; i < cells.rows(); ++i) {
    const std::string& what = std::get<std::string>(status->values[i]);
    if (!is_failure(what)) continue;
    ++failed;
    const std::string line = what + ": " + std::get<std::string>(reason->values[i]);
    Group& group = by_reason[without_numbers(line)];
    if (group.count++ == 0) group.first = line;
    group.differ = group.differ || line != group.first;
  }
  if (failed == 0) return "";
  std::vector<Group> groups;
  for (auto& [key, group] : by_reason) groups.push_back(std::move(group));
  std::stable_sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) { return a.count > b.count; });
  std::string text =
      std::to_string(failed) + " of " + std::to_string(cells.rows()) + " cells failed; --retry runs them again\n";
  for (std::size_t i = 0; i < std::min(groups.size(), most_lines); ++i) {
    text += "  " + std::to_string(groups[i].count) + " x " + shortened(printable(groups[i].first), most_bytes) +
            (groups[i].differ ? " (of the first; the others' numbers differ)\n" : "\n");
  }
  if (groups.size() > most_lines) {
    text += "  and " + std::to_string(groups.size() - most_lines) + " more reasons\n";
  }
  return text;
}

}  // namespace kvlab
