#include <yaml-cpp/yaml.h>

#include <string>
#include <unordered_set>

#include "experiments/config/node.hpp"

namespace kvlab {
namespace {

constexpr std::size_t most_depth = 64;
constexpr std::size_t most_values = 1'000'000;  // aliases of aliases can grow without bound

class Converter {
 public:
  // `place`: given, every node is there; else `file` and the node's own mark.
  Converter(std::string file, std::string place) : file_(std::move(file)), place_(std::move(place)) {}

  Node convert(const YAML::Node& yaml) {
    Node node;
    node.place = place_of(yaml.Mark());
    if (depth_ == most_depth) refuse(node, "more than 64 levels of nesting (an alias within itself?)");
    ++depth_;
    if (++count_ > most_values) refuse(node, "the file grows beyond a million values");
    switch (yaml.Type()) {
      case YAML::NodeType::Scalar:
        node.kind = Node::Kind::scalar;
        node.scalar = yaml.Scalar();
        break;
      case YAML::NodeType::Sequence:
        node.kind = Node::Kind::list;
        for (const auto& item : yaml) node.items.push_back(convert(item));
        break;
      case YAML::NodeType::Map:
        node.kind = Node::Kind::map;
        convert_entries(yaml, node);
        break;
      case YAML::NodeType::Null:
      case YAML::NodeType::Undefined:
        break;
    }
    --depth_;
    return node;
  }

  [[nodiscard]] std::string place_of(const YAML::Mark& mark) const {
    if (!place_.empty()) return place_;
    if (mark.is_null()) return file_;
    return file_ + ":" + std::to_string(mark.line + 1) + ":" + std::to_string(mark.column + 1);
  }

 private:
  void convert_entries(const YAML::Node& yaml, Node& map) {
    std::unordered_set<std::string> seen;
    for (const auto& entry : yaml) {
      add_entry(map, entry.first, entry.second);
      const auto& [key, value] = map.entries.back();
      if (!seen.insert(key).second) throw InputError(value.key_place + ": '" + key + "' stands here a second time");
    }
  }

  void add_entry(Node& map, const YAML::Node& yaml_key, const YAML::Node& yaml_value) {
    const Node key = convert(yaml_key);
    if (!key.is_scalar()) refuse(key, "a key is " + std::string(name_of(key.kind)) + "; keys are names");
    if (key.scalar == "<<") refuse(key, "merge keys (<<) are not read; write the keys out");
    Node value = convert(yaml_value);
    value.key_place = key.place;
    if (value.kind == Node::Kind::null) value.place = key.place;  // a missing value has no place of its own
    map.entries.emplace_back(key.scalar, std::move(value));
  }

  std::string file_;
  std::string place_;
  std::size_t count_ = 0;
  std::size_t depth_ = 0;
};

// What the library's words do not tell: YAML indents by spaces.
std::string hint_of(const std::string& text, const YAML::Mark& mark) {
  if (mark.is_null() || mark.pos < 0 || static_cast<std::size_t>(mark.pos) > text.size()) return "";
  const std::size_t end = static_cast<std::size_t>(mark.pos);
  const std::size_t line = end == 0 ? std::string::npos : text.rfind('\n', end - 1);
  const std::size_t begin = line == std::string::npos ? 0 : line + 1;
  const std::string indent = text.substr(begin, text.find_first_not_of(" \t", begin) - begin);
  return indent.find('\t') == std::string::npos ? "" : "; it is indented with a tab, and YAML takes spaces";
}

Node parse(const std::string& text, const std::string& file, const std::string& place) {
  Converter converter(file, place);
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.size() > 1)
      throw InputError((place.empty() ? file : place) + ": it holds several documents; one is read");
    if (documents.empty()) return converter.convert(YAML::Node());
    return converter.convert(documents.front());
  } catch (const YAML::Exception& error) {
    throw InputError(converter.place_of(error.mark) + ": this is not YAML: " + error.msg + hint_of(text, error.mark));
  }
}

}  // namespace

Node parse_yaml_file(const std::string& text, const std::string& path) { return parse(text, path, ""); }

Node parse_yaml_value(const std::string& text, const std::string& place) { return parse(text, "", place); }

}  // namespace kvlab
