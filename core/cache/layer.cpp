#include "core/cache/layer.hpp"

#include <algorithm>

namespace kvlab {
namespace {

std::uint64_t largest_block(const Role& role) {
  constexpr std::uint64_t of_raw = 128;
  return role.coded() ? *std::max_element(role.block_tokens.begin(), role.block_tokens.end()) : of_raw;
}

}  // namespace

Layer::Layer(const Pipeline& pipeline_, const LayerShape& shape_, bool decodes_)
    : shape((shape_.check(), shape_)),
      pipeline((pipeline_.check(), pipeline_)),
      keys(make_role(pipeline, shape, KVLAB_ROLE_KEYS)),
      values(make_role(pipeline, shape, KVLAB_ROLE_VALUES)),
      decodes(decodes_),
      eviction_step(std::max(largest_block(keys), largest_block(values))) {
  const RungRule rule = rung_rule(pipeline);
  for (std::size_t rung = 0; rung < rule.above.size(); ++rung) {
    rules.push_back(rule);
    rules.back().least = recode_floor(pipeline, static_cast<std::uint8_t>(rung));
  }
  for (const auto& step : pipeline.select) selectors.emplace_back(step.selector, shape.describe(KVLAB_ROLE_BOTH));
}

}  // namespace kvlab
