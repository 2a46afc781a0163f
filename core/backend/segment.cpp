#include "core/backend/segment.hpp"

namespace kvlab {

Role make_role(const Pipeline& pipeline, const LayerShape& shape, std::uint32_t which, const kvlab_host& host) {
  const bool is_keys = which == KVLAB_ROLE_KEYS;
  Role made{which, {}, {}, shape.dtype, is_keys ? shape.head_dim_keys : shape.head_dim_values};
  for (const Rung& rung : pipeline.rungs()) {
    const auto& spec = is_keys ? rung.keys : rung.values;
    if (!spec) continue;
    made.codecs.emplace_back(*spec, shape.describe(which), host);
    made.block_tokens.push_back(made.codecs.back().traits().block_tokens);
  }
  return made;
}

}  // namespace kvlab
