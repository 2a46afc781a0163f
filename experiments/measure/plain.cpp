#include "experiments/measure/plain.hpp"

#include <kvlab/isa.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/cache/rows.hpp"

namespace kvlab {
PlainAttention::PlainAttention(const Pipeline& pipeline, const LayerShape& shape)
    : keys_(make_role(pipeline, shape, KVLAB_ROLE_KEYS, host_with(Isa::scalar))),
      values_(make_role(pipeline, shape, KVLAB_ROLE_VALUES, host_with(Isa::scalar))) {}

void PlainAttention::attend(const LayerCache& cache, const float* queries, float* out) {
  const LayerShape& shape = cache.shape();
  cache.backend().each(shape.batch * shape.query_heads, [&](std::size_t index, std::size_t /*thread*/) {
    const auto kv_head = static_cast<std::uint32_t>(index % shape.query_heads / shape.group());
    const std::uint64_t sequence = index / shape.query_heads;
    const float* query = queries + index * shape.head_dim_keys;
    RowReader reader(cache, 1);
    std::vector<float> scores;
    scores.reserve(cache.kept(sequence, kv_head));
    float largest = -std::numeric_limits<float>::infinity();
    reader.each(sequence, kv_head, keys_, [&](std::uint32_t /*position*/, const float* row) {
      float score = 0;
      for (std::uint64_t c = 0; c < keys_.channels; ++c) score += query[c] * row[c];
      scores.push_back(score * static_cast<float>(shape.attention_scale));
      largest = std::max(largest, scores.back());
    });
    float total = 0;
    float* sums = out + index * shape.head_dim_values;
    std::fill_n(sums, shape.head_dim_values, 0.0F);
    auto score = scores.begin();
    reader.each(sequence, kv_head, values_, [&](std::uint32_t /*position*/, const float* row) {
      const float weight = std::exp(*score++ - largest);
      total += weight;
      for (std::uint64_t c = 0; c < values_.channels; ++c) sums[c] += weight * row[c];
    });
    for (std::uint64_t c = 0; c < values_.channels; ++c) sums[c] /= total;
  });
}

}  // namespace kvlab
