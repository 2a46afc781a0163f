// Values between YAML and JSON: what took effect, and what is handed to a worker.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/registry/parameter.hpp"
#include "experiments/config/node.hpp"

namespace kvlab {

using Json = nlohmann::ordered_json;

// Typed values as JSON, by name.
Json to_json(const std::vector<Parameter>& parameters, const std::vector<kvlab_value>& values);

// The other way: a tree as if it had been read from YAML, for what was handed over as JSON. Its places are `place`.
Node to_node(const Json& json, const std::string& place);

// "codec.bits" -> 8, for every leaf.
std::vector<std::pair<std::string, Json>> flatten(const Json& json, const std::string& prefix = "");

// The value at a dotted path, null when there is none.
const Json* find_json(const Json& json, const std::string& path);

}  // namespace kvlab
