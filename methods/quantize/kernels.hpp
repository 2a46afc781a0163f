// The kernels of attention on packed codes, one table per instruction set. All multiply codes by 16-bit integers: a
// query (or a row of weights) is rounded once to q = factor * x, |x| <= limit, which keeps 15 bits and the sign (error
// below 2e-5 of the vector's largest, far under what 2 to 8 bits of a key lost), and a product then costs what the
// machine multiplies 16-bit pairs at. Codes of 8 and of 4 bits; other widths are unpacked to bytes first (unpack).
//
//   dots   one result per row of codes:    q . token (per_token keys), weights . channel (per_channel values)
//   sums   one result a column:          weights . tokens (per_token values), q . channels (per_channel keys)
//
// Rows may be read to KVLAB_READABLE bytes past the last. kernels.inl draws how codes lie in registers.
#pragma once

#include <kvlab/abi.h>
#include <kvlab/isa.hpp>

#include <cstdint>

namespace quantize {

constexpr std::uint64_t most_channels = 512;
constexpr std::uint64_t chunk_codes = 128;  // vectors are padded with zeros to a multiple
constexpr std::uint64_t padded(std::uint64_t codes) { return (codes + chunk_codes - 1) / chunk_codes * chunk_codes; }
// Rows that one call of sums may take: their sums stay in 32 bits.
constexpr std::uint64_t most_rows = 256;

// Packed codes, row r at base + r * row_bytes.
struct CodeRows {
  const std::uint8_t* base;
  std::uint64_t row_bytes;
  std::uint64_t rows;
  std::uint64_t columns;  // codes per row
  unsigned bits;          // 8 or 4
  bool is_signed;         // two's complement
  const std::uint8_t* ahead;
  std::uint64_t ahead_size;
};

// How encode makes codes: format.hpp's arithmetic.
struct EncodeSetting {
  unsigned bits;
  bool is_signed;        // symmetric
  unsigned scale_dtype;  // a quantize::ScaleDtype
  std::uint64_t group;   // channels (per token)
  bool past_caches;      // codes are 64-byte aligned, and will not be read soon (per token)
};

// What a vector became: x ~ factor * integer. Where it holds no number above least_rounded, factor and integers are 0.
struct Rounded {
  float factor;
  float sum;        // of the integers (exact: below 2^24)
  float error = 0;  // the most that a number is off by; infinite or NaN where one of them is
  float rest = 0;   // sum of the numbers - factor * sum, where it was wanted
};
constexpr float least_rounded = 1e-33F;  // its inverse times 2^15 is still an f32

struct Kernels {
  std::uint64_t register_bytes;

  // `count` <= 512 f32 into padded(count) integers, in the order in which dots meets codes of that width;
  // `largest_code` bounds what they will be multiplied with. group_sums, where not null: of the integers of each
  // `group` elements.
  Rounded (*round_query)(const float* x, std::uint64_t count, unsigned bits, std::int32_t largest_code,
                         std::uint64_t group, std::int16_t* out, float* group_sums);
  // The products x[i] * scales[i], in their own order, a zero after an odd count.
  Rounded (*round_weights)(const float* x, const float* scales, std::uint64_t count, bool wants_rest,
                           std::int16_t* out);
  // The products x[r] * scales[r * groups + g] as group_sums wants them; rounded[groups].
  void (*round_group_weights)(const float* x, const float* scales, std::uint64_t rows, std::uint64_t groups,
                              bool wants_rest, std::int16_t* out, Rounded* rounded);

  // sums[g] += sum over rows of x[r] * zeros[r * groups + g]
  void (*group_dot)(const float* x, const float* zeros, std::uint64_t rows, std::uint64_t groups, float* sums);

  // out[q * out_stride + r] = factor_q * (scales[r] * (codes of row r . x_q) + zeros[r] * sum_q); zeros may be null.
  // x_q is at x + q * x_stride.
  void (*dots)(const CodeRows& rows, const std::int16_t* x, std::uint64_t x_stride, const Rounded* rounded,
               std::uint64_t queries, const float* scales, const float* zeros, float* out, std::uint64_t out_stride);
  // The same with `groups` scales per row, each of `group` codes (group * bits a multiple of 32). group_sums[q * groups
  // + g] is the sum of x_q's integers in a group; scales and zeros are [rows, groups], readable 16 floats past their
  // end. zeros: null where codes are signed.
  void (*group_dots)(const CodeRows& rows, std::uint64_t group, std::uint64_t groups, const std::int16_t* x,
                     std::uint64_t x_stride, const Rounded* rounded, const float* group_sums, std::uint64_t queries,
                     const float* scales, const float* zeros, float* out, std::uint64_t out_stride);
  // sums[q * sum_stride + c] += factor_q * (sum over rows of w_q[r] * code of row r, column c); at most most_rows rows.
  void (*sums)(const CodeRows& rows, const std::int16_t* weights, std::uint64_t weight_stride, const Rounded* rounded,
               std::uint64_t queries, float* sums, std::uint64_t sum_stride);
  // The same with a weight for each (row, group): integers [(row + 1) / 2][groups][2], readable 64 bytes past their
  // end, rounded[q * groups + g]; group * bits a multiple of 128.
  void (*group_sums)(const CodeRows& rows, std::uint64_t group, std::uint64_t groups, const std::int16_t* weights,
                     std::uint64_t weight_stride, const Rounded* rounded, std::uint64_t queries, float* sums,
                     std::uint64_t sum_stride);

  // Weights of `rows` rows, of which `side` lie side by side in a register, as group_sums wants them with groups =
  // side: integers [rows / side / 2][side][2]. sums[side]: of the weights of each place.
  void (*pair_rows)(const std::int16_t* weights, std::uint64_t rows, std::uint64_t side, std::int16_t* out,
                    float* sums);

  // What a group (per token) or the channels (per channel) must be a multiple of to be encoded.
  std::uint64_t encode_step;
  // A block's codes, scales and zeros (asymmetric) as format.hpp lays them out; group divides the channels. False where
  // a group's codes would not decode to finite numbers (Group::decodes_finite).
  bool (*encode_tokens)(const EncodeSetting& setting, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                        std::uint8_t* zeros);
  // `bytes` is scratch of encode_step * (tokens + 15).
  bool (*encode_channels)(const EncodeSetting& setting, const kvlab_view& view, std::uint8_t* codes,
                          std::uint8_t* scales, std::uint8_t* zeros, std::uint8_t* bytes);
  // f32 of a row of codes, of any width; group a multiple of 16, or all columns. Reads KVLAB_READABLE past the row.
  void (*decode_row)(const std::uint8_t* row, unsigned bits, bool is_signed, std::uint64_t columns, std::uint64_t group,
                     const float* scales, const float* zeros, float* out);
  // f32 rows of up to 16 tokens of 16 channels, from 16 x 16 unpacked codes [channel][token].
  void (*decode_channels)(const std::uint8_t* bytes, bool is_signed, std::uint64_t tokens, const float* scales,
                          const float* zeros, float* rows, std::uint64_t row_stride);

  // Codes of 2 to 6 bits as bytes, signed or not; `out` has room for `count` padded to 8.
  void (*unpack)(const std::uint8_t* row, unsigned bits, bool is_signed, std::uint64_t count, std::uint8_t* out);
  // Scales or zeros as stored, as f32. dtype is a quantize::ScaleDtype.
  void (*load_scales)(const std::uint8_t* from, unsigned dtype, std::uint64_t count, float* out);
  // The largest magnitude that codes of 0 to `high` (zeros null: of -high to high) decode to; NaN where a scale is.
  float (*largest_decoded)(const float* scales, const float* zeros, std::uint64_t count, float high);
  float (*dot)(const float* a, const float* b, std::uint64_t count);
};

// Null for the scalar set: the long-hand code of quantize.cpp is its own.
const Kernels* kernels(kvlab::Isa isa);

extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
extern const Kernels avx512vnni_kernels;

}  // namespace quantize
