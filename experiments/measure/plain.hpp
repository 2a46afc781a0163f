// What attention costs where it is not thought through: scalar loops that decode a row of the cache, multiply it with
// one query and forget it, one query head at a time, as engines do that have a quantized cache beside an attention
// written for f32. The plain baseline of the benchmarks; it gives the same outputs. It knows no window of the layer.
#pragma once

#include <memory>
#include <vector>

#include "core/cache/layer_cache.hpp"

namespace kvlab {

class PlainAttention {
 public:
  // Codecs of its own with the scalar instruction set.
  PlainAttention(const Pipeline& pipeline, const LayerShape& shape);

  // One query per query head and sequence, over all that each head keeps: f32 [batch, query_head, channel] in and out.
  void attend(const LayerCache& cache, const float* queries, float* out);

 private:
  Role keys_;
  Role values_;
};

}  // namespace kvlab
