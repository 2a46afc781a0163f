#include "tests/support/attention.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "core/cache/rows.hpp"

namespace kvlab::test {
namespace {

// `of(sequence, kv_head, role)` holds what there is; `sequence` is the queries'.
std::vector<double> attention_over(const LayerShape& shape, const QueryTensor& queries,
                                   const std::function<Held(std::uint64_t, std::uint32_t, std::uint32_t)>& of) {
  std::vector<double> out;
  for (std::uint64_t sequence = 0; sequence < queries.sequences; ++sequence) {
    Held keys;
    Held values;
    for (std::uint32_t head = 0; head < shape.query_heads; ++head) {
      if (head % shape.group() == 0) {
        keys = of(sequence, head / shape.group(), KVLAB_ROLE_KEYS);
        values = of(sequence, head / shape.group(), KVLAB_ROLE_VALUES);
      }
      for (std::uint64_t query = 0; query < queries.count; ++query) {
        const std::uint64_t row = (sequence * shape.query_heads + head) * queries.count + query;
        const auto one = attention(shape, keys, values, queries.base + row * queries.channels,
                                   queries.positions_of(sequence)[query]);
        out.insert(out.end(), one.begin(), one.end());
      }
    }
  }
  return out;
}

}  // namespace

Held held(const LayerCache& cache, std::uint32_t sequence, std::uint32_t kv_head, std::uint32_t role) {
  Held all;
  const Role& of = cache.layer().role(role);
  RowReader(cache).each(sequence, kv_head, of, [&](std::uint32_t position, const float* row) {
    all.positions.push_back(position);
    all.rows.insert(all.rows.end(), row, row + of.channels);
  });
  return all;
}

std::vector<double> attention(const LayerShape& shape, const Held& keys, const Held& values, const float* query,
                              std::uint32_t position) {
  const auto sees = [&](std::uint32_t token) {
    return token <= position && (shape.window == 0 || token + shape.window > position);
  };
  std::vector<double> logits(keys.positions.size(), -std::numeric_limits<double>::infinity());
  double largest = -std::numeric_limits<double>::infinity();
  for (std::size_t t = 0; t < logits.size(); ++t) {
    if (!sees(keys.positions[t])) continue;
    double product = 0;
    for (std::uint32_t c = 0; c < shape.head_dim_keys; ++c) {
      product += static_cast<double>(query[c]) * keys.rows[t * shape.head_dim_keys + c];
    }
    logits[t] = product * shape.attention_scale;
    largest = std::max(largest, logits[t]);
  }
  std::vector<double> out(shape.head_dim_values);
  double total = 0;
  for (std::size_t t = 0; t < logits.size(); ++t) {
    const double weight = sees(keys.positions[t]) ? std::exp(logits[t] - largest) : 0;
    if (weight < 1e-18) continue;  // beside 1, the largest
    total += weight;
    for (std::size_t c = 0; c < out.size(); ++c) out[c] += weight * values.rows[t * out.size() + c];
  }
  for (auto& x : out) x = total > 0 ? x / total : 0;
  return out;
}

std::vector<double> attention(const LayerCache& cache, std::span<const std::uint32_t> sequences,
                              const QueryTensor& queries) {
  return attention_over(cache.shape(), queries, [&](std::uint64_t i, std::uint32_t kv_head, std::uint32_t role) {
    return held(cache, sequences[i], kv_head, role);
  });
}

std::vector<double> attention(const LayerShape& shape, const KvTensor& keys, const KvTensor& values,
                              const QueryTensor& queries) {
  return attention_over(shape, queries, [&](std::uint64_t sequence, std::uint32_t kv_head, std::uint32_t role) {
    const KvTensor& tensor = role == KVLAB_ROLE_KEYS ? keys : values;
    Held all{std::vector<std::uint32_t>(tensor.tokens), std::vector<float>(tensor.tokens * tensor.channels)};
    std::iota(all.positions.begin(), all.positions.end(), 0U);
    for (std::uint64_t t = 0; t < tensor.tokens; ++t) {
      const TokenRows row = tensor.head(sequence, kv_head).from(t);
      to_f32(row.dtype, row.base, all.rows.data() + t * tensor.channels, tensor.channels);
    }
    return all;
  });
}

}  // namespace kvlab::test
