// A concrete pipeline tree, resolved against the registry: methods found, parameters typed, defaults filled in.
#pragma once

#include <nlohmann/json.hpp>

#include "core/cache/pipeline.hpp"
#include "core/registry/registry.hpp"
#include "experiments/config/node.hpp"

namespace kvlab {

using Json = nlohmann::ordered_json;

struct ResolvedPipeline {
  Pipeline pipeline;
  Json effective;                      // {"cache": ..., "select": [...], "codec": {...}}: all that takes effect;
                                       // "adaptive" where there is one, "codec" is then empty
  std::vector<const Method*> methods;  // those it uses, each once
};

// Throws InputError with the place of what is wrong.
ResolvedPipeline resolve_pipeline(const Node& tree, const std::string& what, const Registry& registry);

// Typed values as JSON, by name.
Json to_json(const std::vector<Parameter>& parameters, const std::vector<kvlab_value>& values);

// The other way: a tree as if it had been read from YAML, for what was handed over as JSON. Its places are `place`.
Node to_node(const Json& json, const std::string& place);

// "codec.bits" -> 8, for every leaf.
std::vector<std::pair<std::string, Json>> flatten(const Json& json, const std::string& prefix = "");

}  // namespace kvlab
