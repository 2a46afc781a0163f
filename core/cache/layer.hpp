// What all calls on a layer have in common, and what bookkeeping for one head is given.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/backend/segment.hpp"
#include "core/head/head.hpp"
#include "core/head/layout.hpp"
#include "core/pipeline/ladder.hpp"
#include "core/pipeline/layer_shape.hpp"
#include "core/pipeline/pipeline.hpp"

namespace kvlab {

struct Layer {
  // Throws InputError and MethodError, as shapes, pipelines and instances do.
  Layer(const Pipeline& pipeline, const LayerShape& shape, bool decodes);

  [[nodiscard]] const Role& role(std::uint32_t which) const { return which == KVLAB_ROLE_KEYS ? keys : values; }
  [[nodiscard]] LayoutRule layout_rule(const Role& role, const RungRule& rungs) const {
    return {role.block_tokens, rungs, pipeline.sinks, pipeline.tail};
  }

  LayerShape shape;
  Pipeline pipeline;
  std::vector<RungRule> rules;              // per rung that a sequence is on
  std::vector<SelectorInstance> selectors;  // one per step of the pipeline
  Role keys;
  Role values;
  bool decodes;                 // tokens will be appended
  std::uint64_t eviction_step;  // a head evicts once it keeps so many tokens above its budget: a block of each codec
};

inline constexpr std::array both_roles{KVLAB_ROLE_KEYS, KVLAB_ROLE_VALUES};

// One head in a call.
struct HeadCall {
  const Layer& layer;
  const RungRule& rule;  // of its sequence's rung
  std::uint32_t sequence;
  std::uint32_t kv_head;
  std::uint64_t total;  // tokens that the sequence was given, those of the call included
  Head& head;
};

}  // namespace kvlab
