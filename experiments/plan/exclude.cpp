#include "experiments/plan/exclude.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/nearest.hpp"
#include "core/base/text.hpp"
#include "experiments/config/reader.hpp"
#include "experiments/plan/plan.hpp"

namespace kvlab {
namespace {

// 4, 4.0 and "4" are the same value.
bool equal(const Node& wanted, const std::string& actual, const std::string& key) {
  const std::string& text = scalar_of(wanted, "exclude's " + key);
  double a = 0;
  double b = 0;
  return text == actual || (read_number(text, a) && read_number(actual, b) && a == b);
}

std::vector<std::pair<std::string, std::string>> values_of(const Cell& cell) {
  std::vector<std::pair<std::string, std::string>> values{{"pipeline", cell.pipeline},
                                                          {"workload", cell.workload},
                                                          {"backend", cell.backend},
                                                          {"repeat", std::to_string(cell.repeat)}};
  for (const auto& [path, json] : flatten(cell.parameters)) {
    values.emplace_back(path, json.is_string() ? json.get<std::string>() : json.dump());
  }
  return values;
}

}  // namespace

Exclusion::Exclusion(const std::vector<Node>& rules) : rules_(rules), used_(rules.size()) {
  for (const auto& rule : rules_) {
    if (require_map(rule, "a rule of exclude").entries.empty()) refuse(rule, "a rule of exclude is empty");
  }
}

bool Exclusion::drops(const Cell& cell) {
  bool drops = false;
  for (std::size_t i = 0; i < rules_.size(); ++i) {
    if (!matches(rules_[i], cell)) continue;
    used_[i] = true;
    drops = true;
  }
  return drops;
}

bool Exclusion::matches(const Node& rule, const Cell& cell) {
  const auto values = values_of(cell);
  for (const auto& [key, value] : values) known_[key].insert(value);
  return std::all_of(rule.entries.begin(), rule.entries.end(), [&](const auto& entry) {
    const auto& [key, wanted] = entry;
    const auto found =
        std::find_if(values.begin(), values.end(), [&, &name = key](const auto& v) { return v.first == name; });
    if (found == values.end()) return false;
    if (!wanted.is_list()) return equal(wanted, found->second, key);
    return std::any_of(wanted.items.begin(), wanted.items.end(),
                       [&, &name = key](const auto& item) { return equal(item, found->second, name); });
  });
}

// The nearest of values that are numbers, as numbers are near.
std::string suggestion_of(const std::string& wrong, const std::set<std::string>& values) {
  const std::vector<std::string> all(values.begin(), values.end());
  double wanted = 0;
  if (!read_number(wrong, wanted)) return suggestion(wrong, all);
  const auto distance = [&](const std::string& text) {
    double value = 0;
    return read_number(text, value) ? std::abs(value - wanted) : std::numeric_limits<double>::infinity();
  };
  const auto best =
      std::min_element(all.begin(), all.end(), [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
  return "; the nearest that one has is " + *best;
}

// A value that no cell has, and the nearest that one has.
std::string Exclusion::why_unused(const Node& rule) const {
  for (const auto& [key, wanted] : rule.entries) {
    const std::set<std::string>& values = known_.at(key);
    const auto is_known = [&, &name = key](const Node& node) {
      return std::any_of(values.begin(), values.end(), [&](const auto& value) { return equal(node, value, name); });
    };
    const Node& first = wanted.is_list() && !wanted.items.empty() ? wanted.items.front() : wanted;
    if (wanted.is_list() ? std::any_of(wanted.items.begin(), wanted.items.end(), is_known) : is_known(wanted)) continue;
    return "no cell has " + key + " " + first.scalar + suggestion_of(first.scalar, values);
  }
  return "each of its values is some cell's, no cell has all of them";
}

void Exclusion::check_keys() const {
  std::vector<std::string> names;
  for (const auto& [key, values] : known_) names.push_back(key);
  for (const auto& rule : rules_) {
    for (const auto& [key, value] : rule.entries) {
      if (known_.find(key) == known_.end()) {
        throw InputError(value.key_place + ": exclude: no cell has '" + key + "'" + suggestion(key, names));
      }
    }
  }
  for (std::size_t i = 0; i < rules_.size(); ++i) {
    if (used_[i]) continue;
    spdlog::warn("{}: this rule of exclude drops no cell: {}", printable(rules_[i].place),
                 message(why_unused(rules_[i])));
  }
}

}  // namespace kvlab
