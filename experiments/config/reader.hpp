// Reading a map of the experiment file key by key: typed, in range, and at the end nothing left over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/registry/parameter.hpp"
#include "experiments/config/node.hpp"

namespace kvlab {

class MapReader {
 public:
  // `what` names the map in messages: "the experiment", "pipeline 'int8'".
  MapReader(const Node& node, std::string what);

  // Each marks the key as known.
  const Node* optional(const std::string& key);
  const Node& required(const std::string& key);
  std::int64_t integer(const std::string& key, std::int64_t default_value, std::int64_t least, std::int64_t most);
  bool boolean(const std::string& key, bool default_value);
  std::string text(const std::string& key, const std::string& default_value);
  // One of a declared parameter's values; its default when the key is absent.
  kvlab_value value(const Parameter& parameter);

  // Refuses the first key that nobody asked for.
  void finish() const;

  [[nodiscard]] const Node& node() const { return node_; }
  [[nodiscard]] const std::string& what() const { return what_; }

 private:
  const Node& node_;
  std::string what_;
  std::vector<std::string> known_;
};

const Node& require_map(const Node& node, const std::string& what);
const Node& require_list(const Node& node, const std::string& what);
const std::string& scalar_of(const Node& node, const std::string& what);
std::int64_t integer_of(const Node& node, const std::string& what, std::int64_t least, std::int64_t most);
double real_of(const Node& node, const std::string& what);  // finite
bool boolean_of(const Node& node, const std::string& what);
std::uint64_t bytes_of(const Node& node, const std::string& what);  // "8GiB", "500 MB", "1073741824"

// [A-Za-z0-9_-]+
void check_label(const Node& at, const std::string& label, const std::string& what);

}  // namespace kvlab
