#include "experiments/plan/sweep.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "core/base/nearest.hpp"
#include "experiments/config/reader.hpp"

namespace kvlab {
namespace {

constexpr std::size_t most_variants = 10'000'000;  // whatever is forced
constexpr std::size_t most_values = 10'000;        // of one range

// Paths that take their values together: one sweep, or one zip.
struct Axis {
  std::vector<std::vector<std::string>> paths;
  std::vector<std::vector<Node>> values;  // [point][path]
};

Node scalar_node(std::string text, const Node& at) {
  Node node;
  node.kind = Node::Kind::scalar;
  node.scalar = std::move(text);
  node.place = at.place;
  node.key_place = at.place;
  return node;
}

bool is_sweep(const Node& node) { return node.is_map() && node.find("sweep") != nullptr; }

// Twelve significant digits, whole numbers whole: 0.3, not 0.30000000000000004.
std::string digits(double value) {
  std::array<char, 40> text{};
  const bool whole = value == std::floor(value) && std::fabs(value) < 1e15;
  std::snprintf(text.data(), text.size(), whole ? "%.0f" : "%.12g", value);
  return text.data();
}

// {from, to, times} or {from, to, step}; whole numbers stay whole.
std::vector<Node> range_values(const Node& node) {
  MapReader reader(node, "a sweep's range");
  const Node& from = reader.required("from");
  const Node& to = reader.required("to");
  const Node* times = reader.optional("times");
  const Node* step = reader.optional("step");
  reader.finish();
  if ((times == nullptr) == (step == nullptr)) refuse(node, "a sweep's range needs 'times' or 'step', and not both");
  const double first = real_of(from, "from");
  const double last = real_of(to, "to");
  const double change = times != nullptr ? real_of(*times, "times") : real_of(*step, "step");
  if (last < first) refuse(to, "to is below from");
  if (times != nullptr && (change <= 1 || first <= 0))
    refuse(*times, "'times' needs a factor above 1, and from above 0");
  if (step != nullptr && change <= 0) refuse(*step, "step is " + step->scalar + "; valid: above 0");

  std::vector<Node> values;
  // Rounding must not lose the last value: 0.1 + 2 * 0.1 is to reach 0.3.
  const double end = times != nullptr ? last * (1 + 1e-12) : last + change * 1e-9;
  for (std::size_t i = 0;; ++i) {
    const double exact = times != nullptr ? first * std::pow(change, i) : first + static_cast<double>(i) * change;
    if (exact > end) break;
    if (values.size() == most_values) refuse(node, "a sweep's range has more than 10,000 values");
    values.push_back(scalar_node(digits(exact), node));
  }
  return values;
}

std::vector<Node> sweep_values(const Node& node) {
  MapReader reader(node, "a sweep");
  const Node& values = reader.required("sweep");
  reader.finish();
  if (values.is_map()) return range_values(values);
  if (require_list(values, "a sweep").items.empty()) refuse(values, "a sweep has no values, so the grid has no cells");
  return values.items;
}

std::string dotted(const std::vector<std::string>& path) { return join(path, "."); }

void find_sweeps(const Node& node, std::vector<std::string>& path, std::vector<Axis>& axes) {
  if (is_sweep(node)) {
    Axis axis{{path}, {}};
    for (auto& value : sweep_values(node)) axis.values.push_back({std::move(value)});
    axes.push_back(std::move(axis));
    return;
  }
  const auto descend = [&](const std::string& key, const Node& child) {
    path.push_back(key);
    find_sweeps(child, path, axes);
    path.pop_back();
  };
  for (const auto& [key, child] : node.entries) descend(key, child);
  for (std::size_t i = 0; i < node.items.size(); ++i) descend(std::to_string(i), node.items[i]);
}

void paths_of_maps(const Node& node, const std::string& at, std::vector<std::string>& paths) {
  const auto descend = [&](const std::string& key, const Node& child) {
    const std::string path = at.empty() ? key : at + "." + key;
    if (child.is_map()) paths.push_back(path);
    paths_of_maps(child, path, paths);
  };
  for (const auto& [key, child] : node.entries) descend(key, child);
  for (std::size_t i = 0; i < node.items.size(); ++i) descend(std::to_string(i), node.items[i]);
}

// Puts a value where a path leads. All but its last part must be there.
void put(Node& tree, const std::vector<std::string>& path, const Node& value) {
  if (Node* there = find_path(tree, path)) {
    *there = value;
    return;
  }
  const std::vector<std::string> above(path.begin(), path.end() - 1);
  Node* parent = find_path(tree, above);
  if (parent == nullptr || !parent->is_map()) {
    std::vector<std::string> maps;
    paths_of_maps(tree, "", maps);
    throw InputError(value.key_place + ": zip: there is no map '" + dotted(above) + "' here" +
                     suggestion(dotted(above), maps));
  }
  parent->entries.emplace_back(path.back(), value);
}

Axis zip_axis(const Node& zip, const Node& tree) {
  Axis axis;
  if (require_map(zip, "zip").entries.empty()) refuse(zip, "zip is empty");
  for (const auto& [path, values] : zip.entries) {
    require_list(values, "zip's " + path);
    if (values.items.empty()) refuse(values, "zip's " + path + " has no values, so the grid has no cells");
    if (axis.paths.empty()) axis.values.resize(values.items.size());
    if (values.items.size() != axis.values.size()) {
      refuse(values, "zip's " + path + " has " + std::to_string(values.items.size()) + " values, the first list has " +
                         std::to_string(axis.values.size()));
    }
    axis.paths.push_back(split_path(path));
    Node copy = tree;
    if (find_path(copy, axis.paths.back()) != nullptr) refuse(values, "'" + path + "' has a value besides zip");
    for (std::size_t i = 0; i < values.items.size(); ++i) {
      axis.values[i].push_back(values.items[i]);
      axis.values[i].back().key_place = values.key_place;  // the path is its key, wherever it is put
    }
  }
  return axis;
}

}  // namespace

std::vector<Variant> expand(const Node& tree, const std::string& what, std::size_t most) {
  if (is_sweep(tree)) refuse(tree, what + " is a sweep as a whole; sweep the values in it, or give each a label");
  Node bare = tree;
  std::vector<Axis> axes;
  const auto zip =
      std::find_if(bare.entries.begin(), bare.entries.end(), [](const auto& e) { return e.first == "zip"; });
  if (zip != bare.entries.end()) {
    const Node zipped = zip->second;
    bare.entries.erase(zip);
    axes.push_back(zip_axis(zipped, bare));
  }
  std::vector<std::string> path;
  find_sweeps(bare, path, axes);

  std::size_t count = 1;
  std::vector<std::string> swept;
  for (const auto& axis : axes) {
    if (count * axis.values.size() > most_variants) refuse(tree, what + " has more than 10,000,000 variants");
    count *= axis.values.size();
    if (most != 0 && count > most) {
      refuse(tree, what + " has more than " + std::to_string(most) + " variants; --force runs them all the same");
    }
    for (const auto& axis_path : axis.paths) swept.push_back(dotted(axis_path));
  }
  std::vector<Variant> variants;
  for (std::size_t index = 0; index < count; ++index) {  // the last axis varies fastest
    Variant variant{bare, swept};
    std::size_t rest = index;
    for (std::size_t a = axes.size(); a-- > 0;) {
      const Axis& axis = axes[a];
      const auto& point = axis.values[rest % axis.values.size()];
      rest /= axis.values.size();
      for (std::size_t p = 0; p < axis.paths.size(); ++p) put(variant.tree, axis.paths[p], point[p]);
    }
    variants.push_back(std::move(variant));
  }
  return variants;
}

}  // namespace kvlab
