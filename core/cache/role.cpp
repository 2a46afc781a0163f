#include "core/cache/role.hpp"

namespace kvlab {

Role make_role(const Pipeline& pipeline, const LayerShape& shape, std::uint32_t role) {
  const bool is_keys = role == KVLAB_ROLE_KEYS;
  Role made{{}, shape.dtype, is_keys ? shape.head_dim_keys : shape.head_dim_values};
  for (const Rung& rung : pipeline.rungs()) {
    const auto& spec = is_keys ? rung.keys : rung.values;
    if (spec) made.codecs.emplace_back(*spec, shape.describe(role));
  }
  return made;
}

}  // namespace kvlab
