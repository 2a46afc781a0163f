// Group quantization to 2-8 bits: per token, or per channel over groups of tokens (KIVI, arXiv 2402.02750, section 3).
// Written long hand from the definition in README.md.
#include <kvlab/plugin.hpp>

#include <array>
#include <string>

#include "attend.hpp"
#include "attend_reference.hpp"
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
  Attend attend;
  const Kernels* fast = nullptr;
  std::array<const Kernels*, 2> encoders{};  // the second for what the first's registers are too wide for

  static constexpr kvlab::Info info{
      .id = "quantize",
      .version = "1.1.0",
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
    fast = kernels(static_cast<kvlab::Isa>(host->isa));
    encoders = {fast, fast == nullptr ? nullptr : kernels(kvlab::Isa::avx2)};
    attend = Attend(format, fast, host, layer.attention_scale);
  }

  [[nodiscard]] std::uint64_t block_tokens() const { return format.per_channel && group > 0 ? group : 128; }
  // A block at a time in attention, unless it is a long one.
  [[nodiscard]] bool whole_blocks() const { return block_tokens() <= 256; }
  // Rows per channel are written a piece at a time, which suits scratch better.
  [[nodiscard]] bool fills_bound() const { return !format.per_channel; }
  [[nodiscard]] std::uint64_t bound(std::uint64_t tokens) const {
    return format.code_bytes(tokens) + format.scale_bytes(tokens);
  }
  [[nodiscard]] std::uint64_t encode_scratch() const {
    return kvlab::Scratch::size<float>(block_tokens() * format.channels + 128);
  }

  kvlab_parts encode(const kvlab::EncodeIn& in, std::span<std::uint8_t> out) const {
    kvlab::Scratch scratch = in.scratch;
    const std::uint64_t tokens = in.tokens.tokens;
    std::uint8_t* scales = out.data() + format.code_bytes(tokens);
    std::uint8_t* zeros = scales + format.one_scale_array(tokens);
    const kvlab_parts parts{format.code_bytes(tokens), format.scale_bytes(tokens), 0, 0};
    if (fast_encode(in.tokens, out.data(), scales, zeros, in.past_caches, scratch)) return parts;
    const auto x = scratch.take<float>(tokens * format.channels);
    in.tokens.read_all(x);
    const auto keep = [&](std::uint64_t index, const Group& fitted) {
      if (!fitted.decodes_finite()) refuse();
      format.scale.store(scales, index, fitted.scale);
      if (!symmetric) format.scale.store(zeros, index, fitted.zero);
    };
    if (format.per_channel) {
      encode_channels(x.data(), tokens, out.data(), keep);
    } else {
      encode_tokens(x.data(), tokens, out.data(), keep);
    }
    return parts;
  }

  [[noreturn]] static void refuse() {
    throw kvlab::Unsupported("numbers near the largest of f32: a group of them would decode to infinity");
  }

  // With a kernel, if there is one for this shape: segments of whole registers.
  bool fast_encode(const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales, std::uint8_t* zeros,
                   bool past_caches, kvlab::Scratch scratch) const {
    const EncodeSetting setting{bits, symmetric, static_cast<unsigned>(scale_dtype), format.group, past_caches};
    const std::uint64_t together = format.per_channel ? format.channels : format.group;
    if (format.channels % together != 0) return false;
    for (const Kernels* kernels : encoders) {
      if (kernels == nullptr || together % kernels->encode_step != 0) continue;
      if (format.per_channel) {
        const auto bytes = scratch.take<std::uint8_t>(kernels->encode_step * (view.tokens + 15));
        if (!kernels->encode_channels(setting, view, codes, scales, zeros, bytes.data())) refuse();
      } else {
        if (!kernels->encode_tokens(setting, view, codes, scales, zeros)) refuse();
      }
      return true;
    }
    return false;
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

  // Where all lies follows from the number of tokens, whatever the bytes say.
  void check(const kvlab::Block& block) const {
    if (block.size == bound(block.tokens)) return;
    throw kvlab::InvalidArgument("a damaged block: " + std::to_string(block.tokens) + " tokens make " +
                                 std::to_string(bound(block.tokens)) + " bytes, it has " + std::to_string(block.size));
  }

  void decode(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
              kvlab::Scratch scratch) const {
    check(block);
    if (!attend.decode(block, first, count, rows, scratch)) reference_decode(format, block, first, count, rows);
  }
  [[nodiscard]] std::uint64_t decode_scratch() const { return attend.scratch(); }

  // The same codes and scales, of fewer tokens.
  kvlab_parts gather(const kvlab::Block& block, std::span<const std::uint32_t> keep, std::span<std::uint8_t> out,
                     kvlab::Scratch /*scratch*/) const {
    check(block);
    const std::uint64_t tokens = keep.size();
    const std::uint64_t from_row = format.row_bytes(block.tokens);
    const std::uint8_t* from_scales = block.bytes + format.code_bytes(block.tokens);
    std::uint8_t* scales = out.data() + format.code_bytes(tokens);
    if (format.per_channel) {
      const Reader reader(format, block.bytes, block.tokens);
      for (std::uint64_t c = 0; c < format.channels; ++c) {
        const Codes codes = reader.codes(c);
        pack(out.data() + c * format.row_bytes(tokens), tokens, bits, [&](std::uint64_t t) { return codes[keep[t]]; });
      }
      std::memcpy(scales, from_scales, format.scale_bytes(tokens));
      return {format.code_bytes(tokens), format.scale_bytes(tokens), 0, 0};
    }
    const std::uint64_t scale_row = format.groups() * format.scale.size();
    const std::uint8_t* from_zeros = from_scales + format.one_scale_array(block.tokens);
    std::uint8_t* zeros = scales + format.one_scale_array(tokens);
    for (std::uint64_t t = 0; t < tokens; ++t) {
      std::memcpy(out.data() + t * from_row, block.bytes + keep[t] * from_row, from_row);
      std::memcpy(scales + t * scale_row, from_scales + keep[t] * scale_row, scale_row);
      if (!symmetric) std::memcpy(zeros + t * scale_row, from_zeros + keep[t] * scale_row, scale_row);
    }
    return {format.code_bytes(tokens), format.scale_bytes(tokens), 0, 0};
  }

  // ---- attention on the bytes: attend.hpp --------------------------------------------------------------------------

  [[nodiscard]] std::uint64_t prepared_bytes(std::uint64_t queries) const { return attend.prepared_bytes(queries); }
  [[nodiscard]] std::uint64_t attend_scratch() const { return attend.scratch(); }
  void prepare(std::uint32_t /*kv_head*/, const float* queries, std::uint64_t count, void* prepared,
               kvlab::Scratch /*scratch*/) const {
    attend.prepare(queries, count, prepared);
  }
  void scores(const void* prepared, std::uint64_t queries, const kvlab::Block& block, std::uint64_t first,
              std::uint64_t count, kvlab::Rows out, kvlab::Scratch scratch) const {
    check(block);
    attend.scores(prepared, queries, block, first, count, out, scratch);
  }
  [[nodiscard]] std::uint64_t width() const { return attend.width(); }
  void accumulate(const float* weights, std::uint64_t queries, std::uint64_t weight_stride, const kvlab::Block& block,
                  std::uint64_t first, std::uint64_t count, float* accumulator, kvlab::Scratch scratch) const {
    check(block);
    attend.accumulate(weights, queries, weight_stride, block, first, count, accumulator, scratch);
  }
  void finish(std::uint32_t /*kv_head*/, const float* accumulator, std::uint64_t queries, float* rows,
              kvlab::Scratch /*scratch*/) const {
    attend.finish(accumulator, queries, rows);
  }
};

}  // namespace
}  // namespace quantize

KVLAB_PLUGIN(quantize::Quantize)
