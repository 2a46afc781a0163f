// What a caller hands to a cache, checked before it is used. All throw InputError with a sentence that says what is
// wrong and what is valid. `layer`: the model's number of it, for the sentence.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/cache/encoder.hpp"
#include "core/cache/layer.hpp"

namespace kvlab {

// "layer 3: "
std::string of_layer(std::uint32_t layer);

// Keys or values of [sequences, kv_heads, tokens, channels]: there is a base, aligned to the dtype, and strides with
// which no two rows overlap. Their numbers are not read.
void check_tensor(const LayerShape& shape, std::uint32_t role, const KvTensor& tensor, std::uint64_t sequences,
                  std::uint64_t tokens);

// That `count` rows of one head are finite; row i is of token tokens[i] of the tensor.
void check_rows(const LayerShape& shape, std::uint32_t role, const TokenRows& rows, std::uint64_t sequence,
                std::uint32_t kv_head, std::span<const std::uint32_t> tokens);
// The same of tokens 0 .. count - 1.
void check_rows(const LayerShape& shape, std::uint32_t role, const TokenRows& rows, std::uint64_t sequence,
                std::uint32_t kv_head, std::uint64_t count);

// Queries of `sequences` sequences, positions [sequence, query]: there are some, they are finite, and positions ascend
// in each sequence and stay below 2^31. `what`: "queries", "observed queries".
void check_queries(const LayerShape& shape, const char* what, const float* queries,
                   std::span<const std::uint32_t> positions, std::uint64_t sequences);

// No NaN and no infinity among them.
bool all_finite(Dtype dtype, const void* elements, std::size_t count);

}  // namespace kvlab
