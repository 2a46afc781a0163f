// What a caller hands to a cache, checked before it is used. All throw InputError with a sentence that says what is
// wrong and what is valid.
#pragma once

#include <cstdint>

#include "core/pipeline/layer_shape.hpp"
#include "core/pipeline/tensors.hpp"

namespace kvlab {

// Keys and values of so many sequences of a layer, with its KV heads, head_dim and dtype: of as many tokens, at most
// 2^31; with a base, aligned to the dtype, and strides with which no two rows overlap. Their numbers are not read.
void check_tensors(const LayerShape& shape, const KvTensor& keys, const KvTensor& values, std::uint64_t sequences);

// Queries of so many sequences (1 or more) of a layer, with its query heads and head_dim: there are some, they are
// finite, and positions ascend in each sequence and stay below 2^31. `what`: "queries", "observed queries".
void check_queries(const LayerShape& shape, const char* what, const QueryTensor& queries, std::uint64_t sequences);

}  // namespace kvlab
