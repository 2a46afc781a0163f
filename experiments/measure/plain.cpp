#include "experiments/measure/plain.hpp"

#include <kvlab/isa.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>

namespace kvlab {
namespace {

Role scalar_role(const Pipeline& pipeline, const LayerShape& shape, std::uint32_t role) {
  std::optional<std::string> before;
  if (const char* name = std::getenv("KVLAB_ISA"); name != nullptr) before = name;
  setenv("KVLAB_ISA", name_of(Isa::scalar), 1);  // what an instance asks for when it is made
  Role made = make_role(pipeline, shape, role);
  if (before) {
    setenv("KVLAB_ISA", before->c_str(), 1);
  } else {
    unsetenv("KVLAB_ISA");
  }
  return made;
}

// Calls body(kept token, its row) for each.
template <class Body>
void for_rows(const Role& role, const Head& head, std::uint32_t kv_head, const std::vector<Segment>& segments,
              Workspace& workspace, Body&& body) {
  for (const auto& segment : segments) {
    const std::uint64_t step = segment.encoded ? role.codec(segment).traits().decode_granule : 1;
    float* row = workspace.more_rows.ensure<float>(role.channels * step);
    for (std::uint64_t t = 0; t < segment.tokens; t += step) {
      const std::uint64_t count = std::min(step, segment.tokens - t);
      LayerCache::decode(role, head, kv_head, segment, segment.first + t, count, row, workspace);
      for (std::uint64_t i = 0; i < count; ++i) body(segment.first + t + i, row + i * role.channels);
    }
  }
}

}  // namespace

PlainAttention::PlainAttention(const Pipeline& pipeline, const LayerShape& shape)
    : keys_(scalar_role(pipeline, shape, KVLAB_ROLE_KEYS)), values_(scalar_role(pipeline, shape, KVLAB_ROLE_VALUES)) {}

void PlainAttention::attend(const LayerCache& cache, const float* queries, float* out, ThreadPool& pool) {
  const LayerShape& shape = cache.shape();
  workspaces_.resize(std::max(workspaces_.size(), pool.threads()));
  pool.parallel_for(shape.batch * shape.query_heads, [&](std::size_t index, std::size_t thread) {
    Workspace& workspace = workspaces_[thread];
    const auto kv_head = static_cast<std::uint32_t>(index % shape.query_heads / shape.group());
    const Head& head = cache.head(index / shape.query_heads, kv_head);
    const float* query = queries + index * shape.head_dim_keys;
    float* scores = workspace.floats.ensure<float>(head.positions.tokens() + 1);
    float largest = -std::numeric_limits<float>::infinity();
    for_rows(keys_, head, kv_head, head.keys, workspace, [&](std::uint64_t token, const float* row) {
      float score = 0;
      for (std::uint64_t c = 0; c < keys_.channels; ++c) score += query[c] * row[c];
      scores[token] = score * static_cast<float>(shape.attention_scale);
      largest = std::max(largest, scores[token]);
    });
    float total = 0;
    float* sums = out + index * shape.head_dim_values;
    std::fill_n(sums, shape.head_dim_values, 0.0F);
    for_rows(values_, head, kv_head, head.values, workspace, [&](std::uint64_t token, const float* row) {
      const float weight = std::exp(scores[token] - largest);
      total += weight;
      for (std::uint64_t c = 0; c < values_.channels; ++c) sums[c] += weight * row[c];
    });
    for (std::uint64_t c = 0; c < values_.channels; ++c) sums[c] /= total;
  });
}

}  // namespace kvlab
