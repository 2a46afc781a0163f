#include "experiments/metrics/reference.hpp"

#include <algorithm>
#include <cmath>

#include "core/base/vector.hpp"

namespace kvlab {
namespace {

struct HeadRows {
  const float* keys;    // [tokens, head_dim]
  const float* values;  // [tokens, head_dim]
};

void attend(const WorkloadLayer& layer, const HeadRows& rows, const float* query, std::uint64_t position,
            std::vector<double>& weights, float* out) {
  const LayerShape& shape = layer.shape;
  const std::uint64_t tokens = std::min(layer.tokens(), position + 1);
  const std::uint64_t first =
      shape.window > 0 && position >= shape.window ? std::min(tokens, position - shape.window + 1) : 0;
  std::fill_n(out, shape.head_dim_values, 0.0F);
  if (first == tokens) return;
  weights.resize(tokens);
  for (std::uint64_t t = first; t < tokens; ++t) {
    weights[t] = static_cast<double>(dot(query, rows.keys + t * shape.head_dim_keys, shape.head_dim_keys)) *
                 shape.attention_scale;
  }
  const auto begin = weights.begin() + static_cast<std::ptrdiff_t>(first);
  const double largest = *std::max_element(begin, weights.end());
  double sum = 0;
  for (auto weight = begin; weight != weights.end(); ++weight) {
    *weight = std::exp(*weight - largest);
    sum += *weight;
  }
  for (std::uint64_t t = first; t < tokens; ++t) {
    add_scaled(static_cast<float>(weights[t] / sum), rows.values + t * shape.head_dim_values, out,
               shape.head_dim_values);
  }
}

}  // namespace

std::vector<float> reference_outputs(const WorkloadLayer& layer, Backend& backend) {
  const LayerShape& shape = layer.shape;
  const QueryTensor& judged = layer.judged;
  const std::uint64_t tokens = layer.tokens();
  std::vector<float> outputs(shape.batch * shape.query_heads * judged.count * shape.head_dim_values);
  std::vector<Buffer> scratch(backend.threads());
  std::vector<std::vector<double>> weights(backend.threads());
  backend.each(judged.count == 0 ? 0 : shape.heads(), [&](std::size_t index, std::size_t thread) {
    const auto kv_head = static_cast<std::uint32_t>(index % shape.kv_heads);
    const std::uint64_t sequence = index / shape.kv_heads;
    float* keys = scratch[thread].ensure<float>(tokens * (shape.head_dim_keys + shape.head_dim_values));
    float* values = keys + tokens * shape.head_dim_keys;
    to_f32(layer.keys.head(sequence, kv_head), tokens, shape.head_dim_keys, keys);
    to_f32(layer.values.head(sequence, kv_head), tokens, shape.head_dim_values, values);
    const std::uint64_t first_row =
        (sequence * shape.query_heads + std::uint64_t{kv_head} * shape.group()) * judged.count;
    for (std::uint64_t row = first_row; row < first_row + shape.group() * judged.count; ++row) {
      attend(layer, {keys, values}, judged.base + row * shape.head_dim_keys,
             judged.positions_of(sequence)[row % judged.count], weights[thread],
             outputs.data() + row * shape.head_dim_values);
    }
  });
  return outputs;
}

}  // namespace kvlab
