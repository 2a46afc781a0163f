#include "experiments/config/json.hpp"

namespace kvlab {

Json to_json(const std::vector<Parameter>& parameters, const std::vector<kvlab_value>& values) {
  Json json = Json::object();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    switch (parameter.type) {
      case ParameterType::integer:
        json[parameter.name] = values[i].i;
        break;
      case ParameterType::real:
        json[parameter.name] = values[i].f;
        break;
      case ParameterType::boolean:
        json[parameter.name] = values[i].i != 0;
        break;
      case ParameterType::choice:
        json[parameter.name] = text_of(parameter, values[i]);
        break;
    }
  }
  return json;
}

Node to_node(const Json& json, const std::string& place) {
  Node node;
  node.place = place;
  node.key_place = place;
  if (json.is_object()) {
    node.kind = Node::Kind::map;
    for (const auto& [key, value] : json.items()) node.entries.emplace_back(key, to_node(value, place));
  } else if (json.is_array()) {
    node.kind = Node::Kind::list;
    for (const auto& value : json) node.items.push_back(to_node(value, place));
  } else if (!json.is_null()) {
    node.kind = Node::Kind::scalar;
    node.scalar = json.is_string()         ? json.get<std::string>()
                  : json.is_number_float() ? text_of(json.get<double>())
                                           : json.dump();
  }
  return node;
}

std::vector<std::pair<std::string, Json>> flatten(const Json& json, const std::string& prefix) {
  if (!json.is_structured()) return {{prefix, json}};
  std::vector<std::pair<std::string, Json>> leaves;
  std::size_t index = 0;
  for (const auto& [key, value] : json.items()) {
    const std::string name = json.is_array() ? std::to_string(index++) : key;
    for (auto& leaf : flatten(value, prefix.empty() ? name : prefix + "." + name)) leaves.push_back(std::move(leaf));
  }
  return leaves;
}

const Json* find_json(const Json& json, const std::string& path) {
  const Json* at = &json;
  for (const auto& part : split_path(path)) {
    if (at->is_object() && at->contains(part)) {
      at = &(*at)[part];
    } else if (std::int64_t index = 0; at->is_array() && read_number(part, index) && index >= 0 &&
                                       static_cast<std::size_t>(index) < at->size()) {
      at = &(*at)[static_cast<std::size_t>(index)];
    } else {
      return nullptr;
    }
  }
  return at;
}

}  // namespace kvlab
