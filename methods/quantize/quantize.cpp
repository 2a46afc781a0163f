// Group quantization to 2-8 bits: per token, or per channel over groups of tokens (KIVI, arXiv 2402.02750, section 3).
// Written long hand from the definition in README.md.
#include <kvlab/plugin.hpp>

#include <array>

#include "format.hpp"

namespace quantize {
namespace {

constexpr std::array<std::int64_t, 6> widths{2, 3, 4, 5, 6, 8};
constexpr std::array scales_names{"per_token", "per_channel"};
constexpr std::array dtype_names{"f16", "bf16", "f32"};

struct Quantize : kvlab::Codec {
  unsigned bits;
  bool symmetric;
  Scales scales_along;
  std::uint64_t group;
  ScaleDtype scale_dtype;
  Format format{};

  static constexpr kvlab::Info info{
      .id = "quantize",
      .version = "1.0.0",
      .summary = "group quantization to 2-8 bits, per token or per channel",
      .paper_title = "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache",
      .paper_arxiv = "2402.02750",
  };
  static constexpr auto parameters() {
    return std::tuple{
        kvlab::integer(&Quantize::bits, "bits", 8, widths, "bit", "width of a code"),
        kvlab::flag(&Quantize::symmetric, "symmetric", true, "one scale around 0, or a scale and a zero point"),
        kvlab::choice(&Quantize::scales_along, "scales", Scales::per_token, scales_names,
                      "groups run along the channels of a token, or along the tokens of a channel"),
        kvlab::integer(&Quantize::group, "group", 0, kvlab::Range{0, 65536}, "element",
                       "elements that share a scale; 0: a whole token, or 128 tokens of a channel"),
        kvlab::choice(&Quantize::scale_dtype, "scale_dtype", ScaleDtype::f16, dtype_names,
                      "element type of scales and zero points"),
    };
  }

  void start() {
    const std::uint64_t channels = head_dim();
    const bool whole = group == 0 || group >= channels;
    format = {
        bits,    symmetric, scales_along == Scales::per_channel, whole ? channels : group, ScaleFormat{scale_dtype},
        channels};
  }

  [[nodiscard]] std::uint64_t block_tokens() const { return format.per_channel && group > 0 ? group : 128; }
  [[nodiscard]] std::uint64_t bound(std::uint64_t tokens) const {
    return format.code_bytes(tokens) + format.scale_bytes(tokens);
  }
  [[nodiscard]] std::uint64_t encode_scratch() const {
    return kvlab::Scratch::size<float>(block_tokens() * format.channels);
  }

  kvlab_parts encode(const kvlab::EncodeIn& in, std::span<std::uint8_t> out) const {
    kvlab::Scratch scratch = in.scratch;
    const std::uint64_t tokens = in.tokens.tokens;
    const auto x = scratch.take<float>(tokens * format.channels);
    in.tokens.read_all(x);
    std::uint8_t* scales = out.data() + format.code_bytes(tokens);
    std::uint8_t* zeros = scales + format.one_scale_array(tokens);
    const auto keep = [&](std::uint64_t index, const Group& fitted) {
      format.scale.store(scales, index, fitted.scale);
      if (!symmetric) format.scale.store(zeros, index, fitted.zero);
    };
    if (format.per_channel) {
      encode_channels(x.data(), tokens, out.data(), keep);
    } else {
      encode_tokens(x.data(), tokens, out.data(), keep);
    }
    return {format.code_bytes(tokens), format.scale_bytes(tokens), 0, 0};
  }

  template <class Keep>
  void encode_tokens(const float* x, std::uint64_t tokens, std::uint8_t* out, Keep&& keep) const {
    std::array<Group, 512> fitted;  // groups of a token: a head_dim is at most 512
    for (std::uint64_t t = 0; t < tokens; ++t) {
      const float* row = x + t * format.channels;
      for (std::uint64_t g = 0; g < format.groups(); ++g) {
        const std::uint64_t first = g * format.group;
        fitted[g] = fit(row + first, std::min(format.group, format.channels - first), 1, bits, symmetric, format.scale);
        keep(t * format.groups() + g, fitted[g]);
      }
      pack(out + t * format.row_bytes(tokens), format.channels, bits,
           [&](std::uint64_t c) { return fitted[c / format.group].code(row[c]); });
    }
  }

  template <class Keep>
  void encode_channels(const float* x, std::uint64_t tokens, std::uint8_t* out, Keep&& keep) const {
    for (std::uint64_t c = 0; c < format.channels; ++c) {
      const Group fitted = fit(x + c, tokens, format.channels, bits, symmetric, format.scale);
      keep(c, fitted);
      pack(out + c * format.row_bytes(tokens), tokens, bits,
           [&](std::uint64_t t) { return fitted.code(x[t * format.channels + c]); });
    }
  }

  void decode(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
              kvlab::Scratch /*scratch*/) const {
    const Reader reader(format, block.bytes, block.tokens);
    if (format.per_channel) {
      for (std::uint64_t c = 0; c < format.channels; ++c) {
        const Codes codes = reader.codes(c);
        const float scale = reader.scale(c, 0);
        const float zero = reader.zero(c, 0);
        for (std::uint64_t t = 0; t < count; ++t) {
          rows[t][c] = static_cast<float>(codes[first + t]) * scale + zero;
        }
      }
      return;
    }
    for (std::uint64_t t = 0; t < count; ++t) {
      const Codes codes = reader.codes(first + t);
      for_groups([&](std::uint64_t g, std::uint64_t from, std::uint64_t to) {
        const float scale = reader.scale(first + t, g);
        const float zero = reader.zero(first + t, g);
        for (std::uint64_t c = from; c < to; ++c) rows[t][c] = static_cast<float>(codes[c]) * scale + zero;
      });
    }
  }

  // ---- attention on the bytes --------------------------------------------------------------------------------------
  // per_token:    q.k̂ = sum over groups of s_g * (sum of q_c * code_c) + z_g * (sum of q_c)
  // per_channel:  q.k̂ = sum over channels of (q_c * s_c) * code_c, + sum of q_c * z_c for all tokens of the block
  // and the same the other way round for values. Prepared queries are the queries themselves and their sums a group.

  [[nodiscard]] std::uint64_t prepared_bytes(std::uint64_t queries) const {
    return queries * (format.channels + format.groups()) * sizeof(float);
  }
  [[nodiscard]] std::uint64_t attend_scratch() const { return kvlab::Scratch::size<float>(format.channels); }

  void prepare(std::uint32_t /*kv_head*/, const float* queries, std::uint64_t count, void* prepared,
               kvlab::Scratch /*scratch*/) const {
    auto* out = static_cast<float*>(prepared);
    for (std::uint64_t q = 0; q < count; ++q, queries += format.channels) {
      std::memcpy(out, queries, format.channels * sizeof(float));
      out += format.channels;
      for_groups([&](std::uint64_t /*g*/, std::uint64_t from, std::uint64_t to) {
        float sum = 0;
        for (std::uint64_t c = from; c < to; ++c) sum += queries[c];
        *out++ = sum;
      });
    }
  }

  void scores(const void* prepared, std::uint64_t queries, const kvlab::Block& block, std::uint64_t first,
              std::uint64_t count, kvlab::Rows out, kvlab::Scratch scratch) const {
    const Reader reader(format, block.bytes, block.tokens);
    const auto* query = static_cast<const float*>(prepared);
    const std::uint64_t step = format.channels + format.groups();
    if (format.per_channel) {
      scores_by_channel(reader, query, queries, step, first, count, out);
      return;
    }
    const auto row = scratch.take<float>(format.channels);
    for (std::uint64_t t = 0; t < count; ++t) {
      const Codes codes = reader.codes(first + t);
      for (std::uint64_t c = 0; c < format.channels; ++c) row[c] = static_cast<float>(codes[c]);
      for (std::uint64_t q = 0; q < queries; ++q) {
        const float* values = query + q * step;
        float score = 0;
        for_groups([&](std::uint64_t g, std::uint64_t from, std::uint64_t to) {
          float sum = 0;
          for (std::uint64_t c = from; c < to; ++c) sum += values[c] * row[c];
          score += reader.scale(first + t, g) * sum + reader.zero(first + t, g) * values[format.channels + g];
        });
        out[q][t] = score;
      }
    }
  }

  void scores_by_channel(const Reader& reader, const float* query, std::uint64_t queries, std::uint64_t step,
                         std::uint64_t first, std::uint64_t count, kvlab::Rows out) const {
    for (std::uint64_t q = 0; q < queries; ++q) std::fill_n(out[q], count, 0.0F);
    for (std::uint64_t c = 0; c < format.channels; ++c) {
      const Codes codes = reader.codes(c);
      const float scale = reader.scale(c, 0);
      const float zero = reader.zero(c, 0);
      for (std::uint64_t t = 0; t < count; ++t) {
        const float key = static_cast<float>(codes[first + t]) * scale + zero;
        for (std::uint64_t q = 0; q < queries; ++q) out[q][t] += query[q * step + c] * key;
      }
    }
  }

  [[nodiscard]] std::uint64_t width() const { return format.channels; }

  void accumulate(const float* weights, std::uint64_t queries, std::uint64_t weight_stride, const kvlab::Block& block,
                  std::uint64_t first, std::uint64_t count, float* accumulator, kvlab::Scratch scratch) const {
    const Reader reader(format, block.bytes, block.tokens);
    if (format.per_channel) {
      accumulate_by_channel(reader, weights, queries, weight_stride, first, count, accumulator);
      return;
    }
    const auto row = scratch.take<float>(format.channels);
    for (std::uint64_t t = 0; t < count; ++t) {
      const Codes codes = reader.codes(first + t);
      for_groups([&](std::uint64_t g, std::uint64_t from, std::uint64_t to) {
        const float scale = reader.scale(first + t, g);
        const float zero = reader.zero(first + t, g);
        for (std::uint64_t c = from; c < to; ++c) row[c] = static_cast<float>(codes[c]) * scale + zero;
      });
      for (std::uint64_t q = 0; q < queries; ++q) {
        const float weight = weights[q * weight_stride + t];
        float* sums = accumulator + q * format.channels;
        for (std::uint64_t c = 0; c < format.channels; ++c) sums[c] += weight * row[c];
      }
    }
  }

  void accumulate_by_channel(const Reader& reader, const float* weights, std::uint64_t queries,
                             std::uint64_t weight_stride, std::uint64_t first, std::uint64_t count,
                             float* accumulator) const {
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
        accumulator[q * format.channels + c] += scale * sum + zero * total;
      }
    }
  }

  void finish(std::uint32_t /*kv_head*/, const float* accumulator, std::uint64_t queries, float* rows,
              kvlab::Scratch /*scratch*/) const {
    std::memcpy(rows, accumulator, queries * format.channels * sizeof(float));
  }

 private:
  // Calls body(group, first channel, end); one group of all channels when scales are per channel.
  template <class Body>
  void for_groups(Body&& body) const {
    const std::uint64_t size = format.per_channel ? format.channels : format.group;
    for (std::uint64_t g = 0, from = 0; from < format.channels; ++g, from += size) {
      body(g, from, std::min(from + size, format.channels));
    }
  }
};

}  // namespace
}  // namespace quantize

KVLAB_PLUGIN(quantize::Quantize)
