// Decoding and attention on the bytes of a block, long hand: what attend.hpp is held to, and what runs where it has no
// kernel.
//
//   per_token    q.k̂ = sum over groups of s_g * (sum of q_c * code_c) + z_g * (sum of q_c)
//   per_channel  q.k̂ = sum over channels of (q_c * s_c) * code_c, + sum of q_c * z_c for all tokens of the block
//
// and the same the other way round for values.
#pragma once

#include <kvlab/plugin.hpp>

#include "format.hpp"

namespace quantize {

// Calls body(group, first channel, end); one group of all channels when scales are per channel.
template <class Body>
void for_groups(const Format& format, Body&& body) {
  const std::uint64_t size = format.per_channel ? format.channels : format.group;
  for (std::uint64_t g = 0, from = 0; from < format.channels; ++g, from += size) {
    body(g, from, std::min(from + size, format.channels));
  }
}

inline void reference_decode(const Format& format, const kvlab::Block& block, std::uint64_t first, std::uint64_t count,
                             kvlab::Rows rows) {
  const Reader reader(format, block.bytes, block.tokens);
  if (format.per_channel) {
    for (std::uint64_t c = 0; c < format.channels; ++c) {
      const Codes codes = reader.codes(c);
      const float scale = reader.scale(c, 0);
      const float zero = reader.zero(c, 0);
      for (std::uint64_t t = 0; t < count; ++t) rows[t][c] = static_cast<float>(codes[first + t]) * scale + zero;
    }
    return;
  }
  for (std::uint64_t t = 0; t < count; ++t) {
    const Codes codes = reader.codes(first + t);
    for_groups(format, [&](std::uint64_t g, std::uint64_t from, std::uint64_t to) {
      const float scale = reader.scale(first + t, g);
      const float zero = reader.zero(first + t, g);
      for (std::uint64_t c = from; c < to; ++c) rows[t][c] = static_cast<float>(codes[c]) * scale + zero;
    });
  }
}

// queries [count, channels] -> out[query * out_stride + t]. `row` is scratch of `channels` floats.
inline void reference_scores(const Format& format, const float* query, std::uint64_t queries, const kvlab::Block& block,
                             std::uint64_t first, std::uint64_t count, kvlab::Rows out, float* row) {
  const Reader reader(format, block.bytes, block.tokens);
  if (format.per_channel) {
    for (std::uint64_t q = 0; q < queries; ++q) std::fill_n(out[q], count, 0.0F);
    for (std::uint64_t c = 0; c < format.channels; ++c) {
      const Codes codes = reader.codes(c);
      const float scale = reader.scale(c, 0);
      const float zero = reader.zero(c, 0);
      for (std::uint64_t t = 0; t < count; ++t) {
        const float key = static_cast<float>(codes[first + t]) * scale + zero;
        for (std::uint64_t q = 0; q < queries; ++q) out[q][t] += query[q * format.channels + c] * key;
      }
    }
    return;
  }
  for (std::uint64_t t = 0; t < count; ++t) {
    const Codes codes = reader.codes(first + t);
    for (std::uint64_t c = 0; c < format.channels; ++c) row[c] = static_cast<float>(codes[c]);
    for (std::uint64_t q = 0; q < queries; ++q) {
      const float* values = query + q * format.channels;
      float score = 0;
      for_groups(format, [&](std::uint64_t g, std::uint64_t from, std::uint64_t to) {
        float sum = 0;
        float total = 0;
        for (std::uint64_t c = from; c < to; ++c) {
          sum += values[c] * row[c];
          total += values[c];
        }
        score += reader.scale(first + t, g) * sum + reader.zero(first + t, g) * total;
      });
      out[q][t] = score;
    }
  }
}

// weights [queries, count] by `weight_stride` -> accumulator[query * width + c] +=
inline void reference_accumulate(const Format& format, const float* weights, std::uint64_t queries,
                                 std::uint64_t weight_stride, const kvlab::Block& block, std::uint64_t first,
                                 std::uint64_t count, float* accumulator, std::uint64_t width, float* row) {
  const Reader reader(format, block.bytes, block.tokens);
  if (format.per_channel) {
    for (std::uint64_t c = 0; c < format.channels; ++c) {
      const Codes codes = reader.codes(c);
      const float scale = reader.scale(c, 0);
      const float zero = reader.zero(c, 0);
      for (std::uint64_t q = 0; q < queries; ++q) {
        const float* weight = weights + q * weight_stride;
        float sum = 0;
        float total = 0;
        for (std::uint64_t t = 0; t < count; ++t) {
          sum += weight[t] * static_cast<float>(codes[first + t]);
          total += weight[t];
        }
        accumulator[q * width + c] += scale * sum + zero * total;
      }
    }
    return;
  }
  for (std::uint64_t t = 0; t < count; ++t) {
    const Codes codes = reader.codes(first + t);
    for_groups(format, [&](std::uint64_t g, std::uint64_t from, std::uint64_t to) {
      const float scale = reader.scale(first + t, g);
      const float zero = reader.zero(first + t, g);
      for (std::uint64_t c = from; c < to; ++c) row[c] = static_cast<float>(codes[c]) * scale + zero;
    });
    for (std::uint64_t q = 0; q < queries; ++q) {
      const float weight = weights[q * weight_stride + t];
      float* sums = accumulator + q * width;
      for (std::uint64_t c = 0; c < format.channels; ++c) sums[c] += weight * row[c];
    }
  }
}

}  // namespace quantize
