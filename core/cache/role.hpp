// One role's part of a layer: keys or values.
#pragma once

#include <vector>

#include "core/cache/head.hpp"
#include "core/cache/layer.hpp"
#include "core/cache/pipeline.hpp"

namespace kvlab {

struct Role {
  std::vector<CodecInstance> codecs;  // one a rung of the pipeline; none: raw
  Dtype dtype;
  std::uint64_t channels;

  [[nodiscard]] bool coded() const { return !codecs.empty(); }
  [[nodiscard]] const CodecInstance& codec(const Segment& block) const { return codecs[block.rung]; }
  [[nodiscard]] std::uint64_t block_tokens(std::uint8_t rung) const { return codecs[rung].traits().block_tokens; }
  [[nodiscard]] std::uint64_t row_bytes() const { return channels * size_of(dtype); }
};

// `role` is KVLAB_ROLE_KEYS or _VALUES.
Role make_role(const Pipeline& pipeline, const LayerShape& shape, std::uint32_t role);

}  // namespace kvlab
