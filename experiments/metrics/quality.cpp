#include "experiments/metrics/quality.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/cache/rows.hpp"

namespace kvlab {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

double ratio(double error, double norm) { return error == 0 ? 0 : std::sqrt(error) / std::sqrt(norm); }

// Squared norms of a difference and of what it is from.
struct Sums {
  double error = 0;
  double norm = 0;
  void add(const float* exact, const float* got, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const double difference = static_cast<double>(exact[i]) - got[i];
      error += difference * difference;
      norm += static_cast<double>(exact[i]) * exact[i];
    }
  }
  Sums& operator+=(const Sums& other) {
    error += other.error;
    norm += other.norm;
    return *this;
  }
};

[[noreturn]] void not_finite(const char* what, const LayerShape& shape, std::uint64_t sequence, std::uint64_t head) {
  throw MethodError(KVLAB_INTERNAL, std::string(what) + " not finite in layer " + std::to_string(shape.layer) +
                                        ", sequence " + std::to_string(sequence) + ", head " + std::to_string(head));
}

// One role of one head: what the cache decodes to beside the original's rows.
Sums role_sums(const WorkloadLayer& layer, const Role& role, std::uint64_t sequence, std::uint32_t kv_head,
               RowReader& reader) {
  Sums sums;
  const KvTensor& tensor = role.which == KVLAB_ROLE_KEYS ? layer.keys : layer.values;
  const TokenRows original = tensor.head(sequence, kv_head);
  std::vector<float> exact(role.channels);
  reader.each(sequence, kv_head, role, [&](std::uint32_t position, const float* row) {
    to_f32(original.from(position), 1, role.channels, exact.data());
    sums.add(exact.data(), row, role.channels);
  });
  if (!std::isfinite(sums.error)) not_finite("a decoded block is", layer.shape, sequence, kv_head);
  return sums;
}

void judge_tensors(const WorkloadLayer& layer, const LayerCache& cache, LayerQuality& quality) {
  const LayerShape& shape = layer.shape;
  std::vector<Sums> keys(shape.heads());
  std::vector<Sums> values(shape.heads());
  cache.backend().each(shape.heads(), [&](std::size_t index, std::size_t /*thread*/) {
    const auto kv_head = static_cast<std::uint32_t>(index % shape.kv_heads);
    const std::uint64_t sequence = index / shape.kv_heads;
    RowReader reader(cache);
    keys[index] = role_sums(layer, cache.layer().keys, sequence, kv_head, reader);
    values[index] = role_sums(layer, cache.layer().values, sequence, kv_head, reader);
  });
  Sums key_sums;
  Sums value_sums;
  std::uint64_t kept = 0;
  for (std::size_t index = 0; index < keys.size(); ++index) {
    key_sums += keys[index];
    value_sums += values[index];
    kept += cache.kept(index / shape.kv_heads, static_cast<std::uint32_t>(index % shape.kv_heads));
  }
  quality.kept_tokens = static_cast<double>(kept) / static_cast<double>(shape.heads());
  quality.key_error = kept == 0 ? nan : ratio(key_sums.error, key_sums.norm);
  quality.value_error = kept == 0 ? nan : ratio(value_sums.error, value_sums.norm);
}

void judge_outputs(const WorkloadLayer& layer, const std::vector<float>& reference, const std::vector<float>& outputs,
                   LayerQuality& quality) {
  const LayerShape& shape = layer.shape;
  const std::uint64_t channels = shape.head_dim_values;
  const std::uint64_t vectors = reference.size() / channels;
  if (vectors == 0) {
    quality.output_error = nan;
    quality.output_cosine = nan;
    return;
  }
  Sums all;
  double cosines = 0;
  for (std::uint64_t v = 0; v < vectors; ++v) {
    const float* exact = reference.data() + v * channels;
    const float* got = outputs.data() + v * channels;
    Sums one;
    one.add(exact, got, channels);
    double product = 0;
    double got_norm = 0;
    for (std::uint64_t c = 0; c < channels; ++c) {
      product += static_cast<double>(exact[c]) * got[c];
      got_norm += static_cast<double>(got[c]) * got[c];
    }
    if (!std::isfinite(one.error)) {
      const std::uint64_t head = v / layer.judged.count;
      not_finite("an attention output is", shape, head / shape.query_heads, head % shape.query_heads);
    }
    cosines += product == 0 ? 0 : product / (std::sqrt(one.norm) * std::sqrt(got_norm));
    quality.vector_errors.push_back(ratio(one.error, one.norm));
    all += one;
  }
  quality.output_error = ratio(all.error, all.norm);
  quality.output_cosine = cosines / static_cast<double>(vectors);
}

}  // namespace

LayerQuality judge(const WorkloadLayer& layer, const LayerCache& cache, const std::vector<float>& reference,
                   const std::vector<float>& outputs) {
  LayerQuality quality;
  judge_tensors(layer, cache, quality);
  judge_outputs(layer, reference, outputs, quality);
  return quality;
}

std::vector<float> cache_outputs(const WorkloadLayer& layer, LayerCache& cache) {
  const LayerShape& shape = layer.shape;
  std::vector<float> outputs(shape.batch * shape.query_heads * layer.judged.count * shape.head_dim_values);
  if (!outputs.empty()) cache.attend(layer.judged, outputs.data());
  return outputs;
}

double quantile(const std::vector<double>& sorted, double q) {
  if (sorted.empty()) return nan;
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = place - static_cast<double>(below);
  return sorted[below] + (share == 0 ? 0 : share * (sorted[above] - sorted[below]));
}

}  // namespace kvlab
