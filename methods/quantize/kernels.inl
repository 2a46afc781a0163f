// All kernels of kernels.hpp for one instruction set: what they share, each idea in a file of its own, and the table.
#include <kvlab/simd.hpp>

#include "kernels.hpp"

namespace {

using quantize::CodeRows;
using quantize::Rounded;
using simd::F;
using simd::I;

template <int N>
struct Constant {
  static constexpr int value = N;
};

constexpr std::uint64_t words = simd::bytes / 2;  // 16-bit integers a register

template <unsigned Bits>
constexpr std::uint64_t step_codes = Bits == 8 ? words : 4 * words;
template <unsigned Bits>
constexpr std::uint64_t step_bytes = Bits == 8 ? words : 2 * words;

KVLAB_SIMD std::uint64_t least(std::uint64_t a, std::uint64_t b) { return a < b ? a : b; }

// Bytes [first, last) of what comes next into the second-level cache, and those of these rows that are `near` bytes on
// into the first: the tiles of keys and of values take turns, which the hardware's own prefetching does not follow.
constexpr std::uint64_t near = 512;
KVLAB_SIMD void prefetch(const CodeRows& rows, std::uint64_t first, std::uint64_t last) {
  const auto* own = reinterpret_cast<const char*>(rows.base);
  for (std::uint64_t at = first; at < last; at += 64) _mm_prefetch(own + near + at, _MM_HINT_T0);
  const auto* ahead = reinterpret_cast<const char*>(rows.ahead);
  last = least(last, rows.ahead_size);
  for (; first < last; first += 64) _mm_prefetch(ahead + first, _MM_HINT_T1);
}

}  // namespace

#include "rounding.inl"

#include "dots.inl"
#include "sums.inl"

namespace {

// ---- choices -------------------------------------------------------------------------------------------------------

// Calls body<Bits, Signed, H>(first query) until all are done.
template <int Most4, class Body>
KVLAB_SIMD void dispatch(const CodeRows& rows, std::uint64_t queries, Body body) {
  if (rows.rows == 0 || rows.columns == 0) return;
  const auto each = [&](auto bits, auto is_signed) __attribute__((always_inline)) {
    constexpr int most = decltype(bits)::value == 8 ? 4 : Most4;
    for (std::uint64_t q = 0; q < queries;) {
      const std::uint64_t left = queries - q;
      if constexpr (most >= 4) {
        if (left >= 4) {
          body(bits, is_signed, Constant<4>{}, q);
          q += 4;
          continue;
        }
      }
      if (left >= 2) {
        body(bits, is_signed, Constant<2>{}, q);
        q += 2;
      } else {
        body(bits, is_signed, Constant<1>{}, q);
        q += 1;
      }
    }
  };
  if (rows.bits == 8) {
    if (rows.is_signed) {
      each(Constant<8>{}, Constant<1>{});
    } else {
      each(Constant<8>{}, Constant<0>{});
    }
  } else if (rows.is_signed) {
    each(Constant<4>{}, Constant<1>{});
  } else {
    each(Constant<4>{}, Constant<0>{});
  }
}

void dots(const CodeRows& rows, const std::int16_t* x, std::uint64_t x_stride, const Rounded* rounded,
          std::uint64_t queries, const float* scales, const float* zeros, float* out, std::uint64_t out_stride) {
  dispatch<4>(rows, queries, [&](auto bits, auto is_signed, auto h, std::uint64_t q) {
    dots_of<static_cast<unsigned>(bits.value), is_signed.value != 0, h.value>(
        rows, x + q * x_stride, x_stride, rounded + q, scales, zeros, out + q * out_stride, out_stride);
  });
}

void group_dots(const CodeRows& rows, std::uint64_t group, std::uint64_t groups, const std::int16_t* x,
                std::uint64_t x_stride, const Rounded* rounded, const float* group_sums, std::uint64_t queries,
                const float* scales, const float* zeros, float* out, std::uint64_t out_stride) {
  dispatch<4>(rows, queries, [&](auto bits, auto is_signed, auto h, std::uint64_t q) {
    group_dots_of<static_cast<unsigned>(bits.value), is_signed.value != 0, h.value>(
        rows, group, groups, x + q * x_stride, x_stride, rounded + q, group_sums + q * groups, scales, zeros,
        out + q * out_stride, out_stride);
  });
}

constexpr int most_queries_4 = simd::floats == 16 ? 4 : 2;  // accumulators of 4-bit sums

void sums(const CodeRows& rows, const std::int16_t* weights, std::uint64_t weight_stride, const Rounded* rounded,
          std::uint64_t queries, float* sums, std::uint64_t sum_stride) {
  dispatch<most_queries_4>(rows, queries, [&](auto bits, auto is_signed, auto h, std::uint64_t q) {
    sums_over_columns<static_cast<unsigned>(bits.value), is_signed.value != 0, h.value, false>(
        rows, 0, 1, weights + q * weight_stride, weight_stride, rounded + q, sums + q * sum_stride, sum_stride);
  });
}

void group_sums(const CodeRows& rows, std::uint64_t group, std::uint64_t groups, const std::int16_t* weights,
                std::uint64_t weight_stride, const Rounded* rounded, std::uint64_t queries, float* sums,
                std::uint64_t sum_stride) {
  dispatch<most_queries_4>(rows, queries, [&](auto bits, auto is_signed, auto h, std::uint64_t q) {
    sums_over_columns<static_cast<unsigned>(bits.value), is_signed.value != 0, h.value, true>(
        rows, group, groups, weights + q * weight_stride, weight_stride, rounded + q * groups, sums + q * sum_stride,
        sum_stride);
  });
}

}  // namespace

#include "packing.inl"

#include "scaling.inl"

#include "codes.inl"

#include "encode_channels.inl"
#include "encode_tokens.inl"

#include "decode.inl"

namespace {

constexpr quantize::Kernels all_kernels{
    .register_bytes = simd::bytes,
    .round_query = &round_query,
    .round_weights = &round_weights,
    .round_group_weights = &round_group_weights,
    .group_dot = &group_dot,
    .dots = &dots,
    .group_dots = &group_dots,
    .sums = &sums,
    .group_sums = &group_sums,
    .pair_rows = &pair_rows,
    .encode_step = pair,
    .encode_tokens = &encode_tokens,
    .encode_channels = &encode_channels,
    .decode_row = &decode_row,
    .decode_channels = &decode_channels,
    .unpack = &unpack,
    .load_scales = &load_scales,
    .largest_decoded = &largest_decoded,
    .dot = &dot,
};

}  // namespace
