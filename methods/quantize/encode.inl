// Encoding and decoding; included by kernels.inl.
//
// What a segment (the codes that share a scale) becomes is format.hpp's arithmetic to the last bit. Two things make it
// fast. Segments go by as many as a register has elements, so that their scales are computed side by side. And a
// quotient x / s is taken as x * (1 / s), which differs from it by less than 3e-5 at the most: only where that could
// change the rounding (within 1e-4 of a half) is the division done.
//
// per_channel blocks are coded token by token into bytes, which are then transposed 16 x 16.

namespace {

using quantize::EncodeSetting;

constexpr std::uint64_t fetch_ahead = 2048;  // bytes

struct Scaling {
  F scale;
  F inverse;
  F zero;
  F low;
  F high;
};

// Adding 1.5 * 2^23 leaves no bits below the unit, and the integer in the low bits.
KVLAB_SIMD I integer_bits(F q, F& rounded) {
  const F magic = simd::set1(12582912.0F);
  const F shifted = simd::add(q, magic);
  rounded = simd::sub(shifted, magic);
  return simd::bits_of(shifted);
}

// Codes in the low bits. Where a product with 1 / s could round otherwise than the quotient, `off` gets above 0.4999.
// Symmetric quotients are within the codes by the choice of s, up to the rounding of s itself.
template <bool Signed>
KVLAB_SIMD I quick_codes(F x, const Scaling& by, F& off) {
  const F q = Signed ? simd::mul(x, by.inverse)
                     : simd::max(by.low, simd::min(simd::mul(simd::sub(x, by.zero), by.inverse), by.high));
  F rounded;
  const I codes = integer_bits(q, rounded);
  off = simd::max(off, simd::absolute(simd::sub(q, rounded)));
  return codes;
}

KVLAB_SIMD I exact_codes(F x, const Scaling& by) {
  F q = simd::max(by.low, simd::min(simd::div(simd::sub(x, by.zero), by.scale), by.high));
  q = simd::keep_if_above(q, by.scale, simd::zero());
  F rounded;
  return integer_bits(q, rounded);
}

// 1 / s is of use where it is finite (for 0 it is 0, and then all codes are) and s is what was asked for up to a
// rounding: not below f16's normal numbers, where digits are lost, and not at f16's end, where s was cut off and
// quotients go beyond the codes.
KVLAB_SIMD bool has_inverse(float scale, unsigned dtype) {
  if (dtype == 0) return scale == 0 || (scale > 6.2e-5F && scale < 65504.0F);
  return scale == 0 || scale > 1e-30F;
}

KVLAB_SIMD float high_of(const EncodeSetting& s) {
  return static_cast<float>(s.is_signed ? (1 << (s.bits - 1)) - 1 : (1 << s.bits) - 1);
}

// As scales and zeros read back.
KVLAB_SIMD F rounded_as(unsigned dtype, F x) {
  const auto within = [&](float most) __attribute__((always_inline)) {
    return simd::max(simd::set1(-most), simd::min(x, simd::set1(most)));
  };
  if (dtype == 0) return simd::round_f16(within(65504.0F));
  if (dtype == 1) return simd::round_bf16(within(0x1.FEp127F));
  return within(0x1.FFFFFEp127F);
}

// `now` of them, as stored.
KVLAB_SIMD void store_scales(unsigned dtype, F x, int now, std::uint8_t* to) {
  alignas(64) std::uint8_t all[simd::bytes];
  const std::uint64_t size = dtype == 2 ? 4 : 2;
  if (dtype == 0) {
    simd::store_f16(reinterpret_cast<std::uint16_t*>(all), x);
  } else if (dtype == 1) {
    simd::store_bf16(reinterpret_cast<std::uint16_t*>(all), x);
  } else {
    simd::store(reinterpret_cast<float*>(all), x);
  }
  __builtin_memcpy(to, all, static_cast<std::uint64_t>(now) * size);
}

// Scales and zeros of segments with these largest and least values (symmetric: the largest magnitude, and 0).
KVLAB_SIMD void fit(const EncodeSetting& s, F largest, F smallest, F& scale, F& zero) {
  const F high = simd::set1(high_of(s));
  if (s.is_signed) {
    zero = simd::zero();
    scale = rounded_as(s.scale_dtype, simd::div(largest, high));
  } else {
    zero = simd::add(rounded_as(s.scale_dtype, smallest), simd::zero());  // never -0
    scale = rounded_as(s.scale_dtype, simd::div(simd::max(simd::sub(largest, zero), simd::zero()), high));
  }
}

KVLAB_SIMD F inverse_of(F scale) { return simd::keep_if_above(simd::div(simd::set1(1), scale), scale, simd::zero()); }

constexpr std::uint64_t pair = 2 * simd::floats;

// ---- per token -----------------------------------------------------------------------------------------------------

// One segment into its codes; other widths than 8 and 4 go by bytes. False where the quotients must be taken.
template <kvlab_dtype D, unsigned Bits, bool Exact, bool Signed>
KVLAB_SIMD bool code_segment(const EncodeSetting& s, const void* x, const Scaling& by, std::uint8_t* out) {
  constexpr int place = Bits == 4 ? 4 : 8;
  const I low = simd::iset1((1 << place) - 1);
  alignas(64) std::uint8_t bytes[Bits == 0 ? quantize::most_channels : 1];
  F off = simd::zero();
  for (std::uint64_t c = 0; c < s.group; c += pair) {
    F even;
    F odd;
    simd::load_pair<D>(x, c, even, odd);
    const I e = Exact ? exact_codes(even, by) : quick_codes<Signed>(even, by, off);
    const I o = Exact ? exact_codes(odd, by) : quick_codes<Signed>(odd, by, off);
    const I both = simd::iand_or(e, low, simd::shift_left_32<place>(o));
    if constexpr (Bits == 8) {
      simd::store_words(out + c, both);
    } else if constexpr (Bits == 4) {
      simd::store_bytes(out + c / 2, both);
    } else {
      simd::store_words(bytes + c, both);
    }
  }
  if constexpr (Bits == 0) pack(bytes, s.bits, s.group, out);
  return Exact || simd::all_at_most(off, simd::set1(0.4999F));
}

// Element by element, the largest of a segment (symmetric: of its magnitudes) and the largest of its negatives.
template <kvlab_dtype D, bool Signed>
KVLAB_SIMD void extremes(const std::uint8_t* x, std::uint64_t group, F& most, F& lowest) {
  constexpr std::uint64_t element = D == KVLAB_F32 ? 4 : 2;
  F even;
  F odd;
  simd::load_pair<D>(x, 0, even, odd);
  most = Signed ? simd::absolute(even) : even;
  lowest = simd::sub(simd::zero(), even);
  for (std::uint64_t c = 0; c < group; c += pair) {
    simd::load_pair<D>(x, c, even, odd);
    _mm_prefetch(reinterpret_cast<const char*>(x) + c * element + fetch_ahead, _MM_HINT_T0);
    if constexpr (Signed) {
      most = simd::max(most, simd::max(simd::absolute(even), simd::absolute(odd)));
    } else {
      most = simd::max(most, simd::max(even, odd));
      lowest = simd::max(lowest, simd::sub(simd::zero(), simd::min(even, odd)));
    }
  }
}

// Bits: 8, 4, or 0 for the others.
template <kvlab_dtype D, unsigned Bits, bool Signed>
void encode_tokens_of(const EncodeSetting& s, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                      std::uint8_t* zeros) {
  constexpr std::uint64_t element = D == KVLAB_F32 ? 4 : 2;
  const std::uint64_t groups = view.channels / s.group;
  const std::uint64_t segments = view.tokens * groups;
  const std::uint64_t segment_bytes = s.group * s.bits / 8;
  const std::uint64_t size = s.scale_dtype == 2 ? 4 : 2;
  const auto at = [&](std::uint64_t p) __attribute__((always_inline)) {
    const std::uint64_t offset =
        groups == 1 ? p * static_cast<std::uint64_t>(view.token_stride)
                    : p / groups * static_cast<std::uint64_t>(view.token_stride) + p % groups * s.group;
    return static_cast<const std::uint8_t*>(view.base) + offset * element;
  };
  for (std::uint64_t p = 0; p < segments; p += simd::floats) {
    const int now = static_cast<int>(least(segments - p, simd::floats));
    F most[simd::floats];
    F lowest[simd::floats];  // negated
#pragma GCC unroll 16
    for (int i = 0; i < simd::floats; ++i) most[i] = lowest[i] = simd::zero();
    for (int i = 0; i < now; ++i) {
      extremes<D, Signed>(at(p + static_cast<std::uint64_t>(i)), s.group, most[i], lowest[i]);
    }
    F scale;
    F zero;
    fit(s, simd::reduce_each<simd::Maxima>(most),
        Signed ? simd::zero() : simd::sub(simd::zero(), simd::reduce_each<simd::Maxima>(lowest)), scale, zero);
    store_scales(s.scale_dtype, scale, now, scales + p * size);
    if (!s.is_signed) store_scales(s.scale_dtype, zero, now, zeros + p * size);
    alignas(64) float scale_of[simd::floats];
    alignas(64) float inverse[simd::floats];
    alignas(64) float zero_of[simd::floats];
    simd::store(scale_of, scale);
    simd::store(inverse, inverse_of(scale));
    simd::store(zero_of, zero);
    const F high = simd::set1(high_of(s));
    const F low = Signed ? simd::sub(simd::zero(), high) : simd::zero();
    for (int i = 0; i < now; ++i) {
      const std::uint64_t q = p + static_cast<std::uint64_t>(i);
      const Scaling by{simd::set1(scale_of[i]), simd::set1(inverse[i]), simd::set1(zero_of[i]), low, high};
      std::uint8_t* out = codes + q * segment_bytes;
      if (!has_inverse(scale_of[i], s.scale_dtype) || !code_segment<D, Bits, false, Signed>(s, at(q), by, out)) {
        code_segment<D, Bits, true, Signed>(s, at(q), by, out);
      }
    }
  }
}

template <kvlab_dtype D, bool Signed>
void encode_tokens_by_bits(const EncodeSetting& s, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                           std::uint8_t* zeros) {
  if (s.bits == 8) {
    encode_tokens_of<D, 8, Signed>(s, view, codes, scales, zeros);
  } else if (s.bits == 4) {
    encode_tokens_of<D, 4, Signed>(s, view, codes, scales, zeros);
  } else {
    encode_tokens_of<D, 0, Signed>(s, view, codes, scales, zeros);
  }
}

template <kvlab_dtype D>
void encode_tokens_by_sign(const EncodeSetting& s, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                           std::uint8_t* zeros) {
  if (s.is_signed) {
    encode_tokens_by_bits<D, true>(s, view, codes, scales, zeros);
  } else {
    encode_tokens_by_bits<D, false>(s, view, codes, scales, zeros);
  }
}

void encode_tokens(const EncodeSetting& s, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                   std::uint8_t* zeros) {
  if (view.dtype == KVLAB_F32) {
    encode_tokens_by_sign<KVLAB_F32>(s, view, codes, scales, zeros);
  } else if (view.dtype == KVLAB_BF16) {
    encode_tokens_by_sign<KVLAB_BF16>(s, view, codes, scales, zeros);
  } else {
    encode_tokens_by_sign<KVLAB_F16>(s, view, codes, scales, zeros);
  }
}

// ---- per channel ---------------------------------------------------------------------------------------------------

KVLAB_SIMD F load_floats(const kvlab_view& view, std::uint64_t token, std::uint64_t channel) {
  const std::uint64_t offset = token * static_cast<std::uint64_t>(view.token_stride) + channel;
  if (view.dtype == KVLAB_F32) return simd::load(static_cast<const float*>(view.base) + offset);
  const std::uint16_t* bits = static_cast<const std::uint16_t*>(view.base) + offset;
  return view.dtype == KVLAB_BF16 ? simd::load_bf16(bits) : simd::load_f16(bits);
}

// [16 rows of 16 bytes] <-> its transpose.
KVLAB_SIMD void transpose_16(const std::uint8_t* from, std::uint64_t from_stride, std::uint8_t* to,
                             std::uint64_t to_stride) {
  __m128i a[16];
  __m128i b[16];
#pragma GCC unroll 16
  for (std::uint64_t i = 0; i < 16; ++i) {
    a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * from_stride));
  }
  const auto stage = [](const __m128i* in, __m128i* out) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      out[2 * i] = _mm_unpacklo_epi8(in[i], in[i + 8]);
      out[2 * i + 1] = _mm_unpackhi_epi8(in[i], in[i + 8]);
    }
  };
  stage(a, b);
  stage(b, a);
  stage(a, b);
  stage(b, a);
#pragma GCC unroll 16
  for (std::uint64_t i = 0; i < 16; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * to_stride), a[i]);
}

// channels a multiple of 16, tokens of 8 / bits; `bytes` is scratch of 16 * (tokens + 15).
void encode_channels(const EncodeSetting& s, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                     std::uint8_t* zeros, std::uint8_t* bytes) {
  const std::uint64_t size = s.scale_dtype == 2 ? 4 : 2;
  const std::uint64_t tokens = view.tokens;
  const std::uint64_t row_bytes = (tokens * s.bits + 7) / 8;
  const std::uint64_t rounded = (tokens + 15) / 16 * 16;
  const F high = simd::set1(high_of(s));
  std::uint8_t* transposed = bytes + 16 * rounded;
  for (std::uint64_t c = 0; c < view.channels; c += 16) {
    for (std::uint64_t part = 0; part < 16; part += simd::floats) {
      const std::uint64_t channel = c + part;
      F most = load_floats(view, 0, channel);
      F smallest = most;
      for (std::uint64_t t = 0; t < tokens; ++t) {
        const F x = load_floats(view, t, channel);
        most = simd::max(most, x);
        smallest = simd::min(smallest, x);
      }
      if (s.is_signed) most = simd::max(simd::absolute(most), simd::absolute(smallest));
      Scaling by;
      by.high = high;
      by.low = s.is_signed ? simd::sub(simd::zero(), high) : simd::zero();
      fit(s, most, smallest, by.scale, by.zero);
      by.inverse = inverse_of(by.scale);
      alignas(64) float scale_of[simd::floats];
      simd::store(scale_of, by.scale);
      bool inverses = true;
      for (const float scale : scale_of) inverses = inverses && has_inverse(scale, s.scale_dtype);
      store_scales(s.scale_dtype, by.scale, simd::floats, scales + channel * size);
      if (!s.is_signed) store_scales(s.scale_dtype, by.zero, simd::floats, zeros + channel * size);
      for (std::uint64_t t = 0; t < tokens; ++t) {
        const F x = load_floats(view, t, channel);
        F off = simd::zero();
        I code = s.is_signed ? quick_codes<true>(x, by, off) : quick_codes<false>(x, by, off);
        if (!inverses || !simd::all_at_most(off, simd::set1(0.4999F))) code = exact_codes(x, by);
        simd::store_bytes(bytes + 16 * t + part, code);
      }
    }
    for (std::uint64_t t = 0; t < tokens; t += 16) transpose_16(bytes + 16 * t, 16, transposed + t, rounded);
    for (std::uint64_t i = 0; i < 16; ++i) {
      std::uint8_t* to = codes + (c + i) * row_bytes;
      if (s.bits == 8) {
        __builtin_memcpy(to, transposed + i * rounded, tokens);
      } else {
        pack(transposed + i * rounded, s.bits, tokens, to);
      }
    }
  }
}

// ---- decoding ------------------------------------------------------------------------------------------------------

// A row of codes as f32: code * scale + zero, rounded after each. Reads to KVLAB_READABLE past the row.
template <bool Signed>
KVLAB_SIMD void decode_row_of(const std::uint8_t* row, unsigned bits, std::uint64_t columns, std::uint64_t group,
                              const float* scales, const float* zeros, float* out) {
  for (std::uint64_t c = 0; c < columns; c += simd::floats) {
    I codes;
    if (bits == 8) {
      codes = Signed ? simd::widen_signed_32(row + c) : simd::widen_unsigned_32(row + c);
    } else {
      alignas(16) std::uint8_t bytes[16];
      unpack(row + c * bits / 8, bits, Signed, simd::floats, bytes);
      codes = Signed ? simd::widen_signed_32(bytes) : simd::widen_unsigned_32(bytes);
    }
    const std::uint64_t g = c / group;
    F y = simd::mul(simd::to_float(codes), simd::set1(scales[g]));
    if (zeros != nullptr) y = simd::add(y, simd::set1(zeros[g]));
    simd::store_first(out + c, y, static_cast<int>(least(columns - c, simd::floats)));
  }
}

// group a multiple of `floats`, or all columns.
void decode_row(const std::uint8_t* row, unsigned bits, bool is_signed, std::uint64_t columns, std::uint64_t group,
                const float* scales, const float* zeros, float* out) {
  if (is_signed) {
    decode_row_of<true>(row, bits, columns, group, scales, zeros, out);
  } else {
    decode_row_of<false>(row, bits, columns, group, scales, zeros, out);
  }
}

// 16 channels of up to 16 tokens as f32 rows, from 16 rows of unpacked codes.
void decode_channels(const std::uint8_t* bytes, bool is_signed, std::uint64_t tokens, const float* scales,
                     const float* zeros, float* rows, std::uint64_t row_stride) {
  alignas(16) std::uint8_t by_token[256];
  transpose_16(bytes, 16, by_token, 16);
  for (std::uint64_t t = 0; t < tokens; ++t) {
    for (std::uint64_t part = 0; part < 16; part += simd::floats) {
      const std::uint8_t* p = by_token + 16 * t + part;
      const I codes = is_signed ? simd::widen_signed_32(p) : simd::widen_unsigned_32(p);
      F y = simd::mul(simd::to_float(codes), simd::load(scales + part));
      if (zeros != nullptr) y = simd::add(y, simd::load(zeros + part));
      simd::store(rows + t * row_stride + part, y);
    }
  }
}

}  // namespace
