// A concrete pipeline tree, resolved against the registry: methods found, parameters typed, defaults filled in.
#pragma once

#include "core/pipeline/pipeline.hpp"
#include "core/registry/registry.hpp"
#include "experiments/config/json.hpp"

namespace kvlab {

struct ResolvedPipeline {
  Pipeline pipeline;
  Json effective;                      // {"cache": ..., "select": [...], "codec": {...}}: all that takes effect;
                                       // "adaptive" where there is one, "codec" is then empty
  std::vector<const Method*> methods;  // those it uses, each once
};

// Throws InputError with the place of what is wrong.
ResolvedPipeline resolve_pipeline(const Node& tree, const std::string& what, const Registry& registry);

}  // namespace kvlab
