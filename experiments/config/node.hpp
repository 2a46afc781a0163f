// A YAML document as a tree that remembers where each value was written, so that whoever refuses a value can say so.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/error.hpp"

namespace kvlab {

struct Entry;

struct Node {
  enum class Kind { scalar, list, map, null };
  Kind kind = Kind::null;
  std::string scalar;
  std::vector<Node> items;     // of a list
  std::vector<Entry> entries;  // of a map, in the order of the file
  std::string place;           // "file:line:column", or the flag --set that gave the value
  std::string key_place;       // of the key, where it is a map's entry

  [[nodiscard]] bool is_map() const { return kind == Kind::map; }
  [[nodiscard]] bool is_list() const { return kind == Kind::list; }
  [[nodiscard]] bool is_scalar() const { return kind == Kind::scalar; }
  [[nodiscard]] const Node* find(std::string_view key) const;
  [[nodiscard]] Node* find(std::string_view key);
};

struct Entry {
  std::string first;
  Node second;
};

const char* name_of(Node::Kind kind);  // a value, a list, a map, nothing

// "place: what"
[[noreturn]] void refuse(const Node& at, const std::string& what);

// Parses a file's text, or the value of --set, whose `place` every node then carries. Throws InputError for what is no
// YAML, a duplicate key, a merge key, several documents, or more than a million values.
Node parse_yaml_file(const std::string& text, const std::string& path);
Node parse_yaml_value(const std::string& text, const std::string& place);

// "a.b.0.c" -> {"a", "b", "0", "c"}
std::vector<std::string> split_path(std::string_view path);

// The node at a path below `root`; null when it is not there.
Node* find_path(Node& root, const std::vector<std::string>& path);

// Applies --set path=value to an experiment's root: replaces the value, or adds it to the map that it belongs to,
// making maps on the way; a pipeline or a workload must be there. Throws InputError whose place is the flag.
void apply_set(Node& root, const std::string& assignment);

}  // namespace kvlab
