#include "experiments/config/node.hpp"

#include <algorithm>
#include <charconv>

#include "core/base/nearest.hpp"

namespace kvlab {
namespace {

// The item or entry named `key`; null when it is not there.
Node* step(Node& node, const std::string& key) {
  if (node.is_map()) return node.find(key);
  if (!node.is_list()) return nullptr;
  std::size_t index = 0;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
  const bool whole = error == std::errc() && end == key.data() + key.size();
  return whole && index < node.items.size() ? &node.items[index] : nullptr;
}

std::vector<std::string> names_below(const Node& node) {
  std::vector<std::string> names;
  for (const auto& [key, value] : node.entries) names.push_back(key);
  for (std::size_t i = 0; i < node.items.size(); ++i) names.push_back(std::to_string(i));
  return names;
}

Node& add(Node& map, const std::string& key, const std::string& place) {
  map.entries.emplace_back(key, Node{});
  map.entries.back().second.place = place;
  map.entries.back().second.key_place = place;
  return map.entries.back().second;
}

}  // namespace

const Node* Node::find(std::string_view key) const {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.first == key; });
  return found == entries.end() ? nullptr : &found->second;
}

Node* Node::find(std::string_view key) { return const_cast<Node*>(std::as_const(*this).find(key)); }

const char* name_of(Node::Kind kind) {
  switch (kind) {
    case Node::Kind::scalar:
      return "a value";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::map:
      return "a map";
    case Node::Kind::null:
      break;
  }
  return "nothing";
}

void refuse(const Node& at, const std::string& what) { throw InputError(at.place + ": " + what); }

std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> parts;
  while (true) {
    const auto dot = path.find('.');
    parts.emplace_back(path.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    path.remove_prefix(dot + 1);
  }
}

Node* find_path(Node& root, const std::vector<std::string>& path) {
  Node* node = &root;
  for (const auto& part : path) {
    node = step(*node, part);
    if (node == nullptr) return nullptr;
  }
  return node;
}

void apply_set(Node& root, const std::string& assignment) {
  const std::string place = "--set " + assignment;
  const auto equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) throw InputError(place + ": it is not of the form path=value");
  const auto path = split_path(std::string_view(assignment).substr(0, equals));
  const Node value = parse_yaml_value(assignment.substr(equals + 1), place);
  Node* node = &root;
  for (std::size_t depth = 0; depth < path.size(); ++depth) {
    const std::string& key = path[depth];
    Node* next = step(*node, key);
    const bool label = depth == 1 && (path[0] == "pipelines" || path[0] == "workloads");
    const bool may_add = node->is_map() && !key.empty() && depth > 0 && (!label || path.size() == 2);
    const bool top = depth == 0 && path.size() <= 2;
    if (next == nullptr && !may_add && !top) {
      const std::string whole = label ? "; " + path[0] + "." + key + "={...} adds a whole one" : "";
      throw InputError(place + ": there is no '" + key + "'" + suggestion(key, names_below(*node)) + whole);
    }
    if (next == nullptr) {
      next = &add(*node, key, place);
      if (depth + 1 < path.size()) next->kind = Node::Kind::map;
    }
    node = next;
  }
  *node = value;
  node->key_place = place;
}

}  // namespace kvlab
