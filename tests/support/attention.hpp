// Attention as it is defined, in f64, over rows that are chosen one by one: what all tests hold attention to.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/cache/layer_cache.hpp"

namespace kvlab::test {

// The tokens that one role of a head holds, in order.
struct Held {
  std::vector<std::uint32_t> positions;
  std::vector<float> rows;  // [token, channel]
};

// What a cache decodes to. `role`: KVLAB_ROLE_KEYS, _VALUES.
Held held(const LayerCache& cache, std::uint32_t sequence, std::uint32_t kv_head, std::uint32_t role);

// softmax(scale q k) v over the tokens that a query at this position sees; 0 where there are none.
std::vector<double> attention(const LayerShape& shape, const Held& keys, const Held& values, const float* query,
                              std::uint32_t position);

// Over what sequences of a cache decode to: [sequence, query_head, query, channel].
std::vector<double> attention(const LayerCache& cache, std::span<const std::uint32_t> sequences,
                              const QueryTensor& queries);

// Over a caller's own rows, all tokens.
std::vector<double> attention(const LayerShape& shape, const KvTensor& keys, const KvTensor& values,
                              const QueryTensor& queries);

}  // namespace kvlab::test
