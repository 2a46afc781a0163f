#include "experiments/config/reader.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "core/base/nearest.hpp"

namespace kvlab {

MapReader::MapReader(const Node& node, std::string what) : node_(require_map(node, what)), what_(std::move(what)) {}

const Node* MapReader::optional(const std::string& key) {
  known_.push_back(key);
  return node_.find(key);
}

const Node& MapReader::required(const std::string& key) {
  const Node* found = optional(key);
  if (found == nullptr) refuse(node_, what_ + " needs '" + key + "'");
  return *found;
}

std::int64_t MapReader::integer(const std::string& key, std::int64_t default_value, std::int64_t least,
                                std::int64_t most) {
  const Node* found = optional(key);
  return found == nullptr ? default_value : integer_of(*found, key, least, most);
}

bool MapReader::boolean(const std::string& key, bool default_value) {
  const Node* found = optional(key);
  return found == nullptr ? default_value : boolean_of(*found, key);
}

std::string MapReader::text(const std::string& key, const std::string& default_value) {
  const Node* found = optional(key);
  return found == nullptr ? default_value : scalar_of(*found, key);
}

kvlab_value MapReader::value(const Parameter& parameter) {
  const Node* found = optional(parameter.name);
  if (found == nullptr) return parameter.default_value;
  if (!found->is_scalar()) {
    refuse(*found, parameter.name + " is " + name_of(found->kind) +
                       ", not a single value; a cell for each of several is {sweep: [" +
                       text_of(parameter, parameter.default_value) + ", ...]}");
  }
  try {
    return parse(parameter, scalar_of(*found, parameter.name));
  } catch (const InputError& error) {
    const std::string text = error.what();
    if (text.starts_with(found->place)) throw;
    refuse(*found, text);
  }
}

void MapReader::finish() const {
  for (const auto& [key, value] : node_.entries) {
    if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
      throw InputError(value.key_place + ": " + what_ + " has no '" + key + "'" + suggestion(key, known_));
    }
  }
}

const Node& require_map(const Node& node, const std::string& what) {
  if (!node.is_map()) refuse(node, what + " is " + name_of(node.kind) + ", not a map");
  return node;
}

const Node& require_list(const Node& node, const std::string& what) {
  if (!node.is_list()) refuse(node, what + " is " + name_of(node.kind) + ", not a list");
  return node;
}

const std::string& scalar_of(const Node& node, const std::string& what) {
  if (!node.is_scalar()) refuse(node, what + " is " + name_of(node.kind) + ", not a single value");
  return node.scalar;
}

std::int64_t integer_of(const Node& node, const std::string& what, std::int64_t least, std::int64_t most) {
  const std::string range = std::to_string(least) + " .. " + std::to_string(most);
  std::int64_t value = 0;
  if (!read_number(scalar_of(node, what), value)) {
    refuse(node, what + " is '" + node.scalar + "', not an integer; valid: " + range);
  }
  if (value < least || value > most) {
    refuse(node, what + " is " + node.scalar + "; the nearest valid value is " +
                     std::to_string(std::clamp(value, least, most)) + " (valid: " + range + ")");
  }
  return value;
}

double real_of(const Node& node, const std::string& what) {
  double value = 0;
  if (!read_number(scalar_of(node, what), value)) refuse(node, what + " is '" + node.scalar + "', not a finite number");
  return value;
}

bool boolean_of(const Node& node, const std::string& what) {
  const std::string& text = scalar_of(node, what);
  if (text != "true" && text != "false") refuse(node, what + " is '" + text + "'; valid: true, false");
  return text == "true";
}

std::uint64_t bytes_of(const Node& node, const std::string& what) {
  constexpr std::array<std::pair<std::string_view, double>, 9> units{{{"B", 1},
                                                                      {"KiB", 1024.0},
                                                                      {"MiB", 1048576.0},
                                                                      {"GiB", 1073741824.0},
                                                                      {"TiB", 1099511627776.0},
                                                                      {"KB", 1e3},
                                                                      {"MB", 1e6},
                                                                      {"GB", 1e9},
                                                                      {"TB", 1e12}}};
  const std::string& text = scalar_of(node, what);
  const auto end = text.find_first_not_of("0123456789.");
  std::string_view unit = end == std::string::npos ? "B" : std::string_view(text).substr(end);
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  const auto found = std::find_if(units.begin(), units.end(), [&](const auto& u) { return u.first == unit; });
  double number = 0;
  if (found == units.end() || !read_number(std::string_view(text).substr(0, end), number) ||
      number * found->second < 1 || number * found->second > 1e15) {
    refuse(node, what + " is '" + text + "'; valid: a number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, like 8GiB");
  }
  return static_cast<std::uint64_t>(number * found->second);
}

void check_label(const Node& at, const std::string& label, const std::string& what) {
  const auto valid = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-'; };
  if (label.empty() || label.size() > 128 || !std::all_of(label.begin(), label.end(), valid)) {
    refuse(at, what + " '" + label + "' is not of the form [A-Za-z0-9_-]+");
  }
}

}  // namespace kvlab
