// Numbers and a scale to codes, format.hpp's arithmetic to the last bit; included by kernels.inl.
//
// A quotient x / s is taken as a product x * (1 / s), in fixed point: one fma adds a power of two, 1/2 and a nudge, so
// that the code is whole bits of the sum, and the bits below it say how near the quotient is to where its rounding
// changes.
//
//        31      24 23        16 15                 0
//       |    -     |    code    | its fraction       |    of 8 bits: the sum's bits shifted left by 1
//       |    -     |  -  | code | its fraction       |    of 4 bits: shifted right by 3
//
// The nudge is above what a product may differ from its quotient, so that where a fraction is up to twice the nudge the
// rounding is in doubt, and nowhere else is it. There, up to 2 rows of 128 in a hundred, the divisions are done. In
// units of the fraction, 2^-16, codes of 8 bits are off by: 1 for the inverse (255.5 * 2^-24), 1 for half a place of
// the sum, whose last bit is worth 2, and .5 for half a place of the quotient. Those of 4 bits by less than .2.

namespace {

constexpr std::uint64_t pair = 2 * simd::floats;

template <unsigned Bits>
struct Fixed {
  static constexpr float power = Bits == 4 ? 16 : 256;
  static constexpr int nudge = Bits == 4 ? 1 : 4;  // units of the fraction
  static constexpr int field = Bits == 4 ? 0xF : 0xFF;
  // Signed codes lie half the power too high: their sign bits are the wrong way round.
  static constexpr int sign = Bits == 4 ? 0x88 : 0x8080;

  KVLAB_SIMD F added(bool is_signed) {
    return simd::set1(power + (is_signed ? power / 2 : 0) + 0.5F + static_cast<float>(nudge) / 65536);
  }
  KVLAB_SIMD I bits(F sum) {
    if constexpr (Bits == 4) return simd::shift_right_32<3>(simd::bits_of(sum));
    return simd::shift_left_32<1>(simd::bits_of(sum));
  }
};

// Codes of `pair` neighbours, in the upper halves of a register's integers: two bytes each, or two halves of one.
template <unsigned Bits>
KVLAB_SIMD I paired(I even, I odd) {
  constexpr int width = Bits == 4 ? 4 : 8;
  return simd::choose(simd::iset1(Fixed<Bits>::field << 16), even, simd::shift_left_32<width>(odd));
}

// The codes of x[0 .. count) in count / pair registers; the scales of even and of odd elements. False where divisions
// must be done. Fetches what lies `ahead` bytes on, where that is not 0: the hardware does not while a segment is
// computed.
template <kvlab_dtype D, unsigned Bits, bool Signed>
KVLAB_SIMD bool quick_codes(const void* x, std::uint64_t count, const Scaling& of_even, const Scaling& of_odd,
                            std::int64_t ahead, I* codes) {
  using Point = Fixed<Bits>;
  const F added = Point::added(Signed);
  I fractions = simd::iset1(-1);
#pragma GCC unroll 8
  for (std::uint64_t c = 0; c < count; c += pair) {
    constexpr std::uint64_t step = pair * element_bytes<D>;
    for (std::uint64_t at = 0; ahead != 0 && at < step; at += 64) {
      if (c * element_bytes<D> % 64 != 0) continue;  // a line once
      _mm_prefetch(static_cast<const char*>(x) + c * element_bytes<D> + at + ahead, _MM_HINT_T1);
    }
    F even;
    F odd;
    simd::load_pair<D>(x, c, even, odd);
    if constexpr (!Signed) {
      even = simd::sub(even, of_even.zero);
      odd = simd::sub(odd, of_odd.zero);
    }
    const I e = Point::bits(simd::fma(even, of_even.inverse, added));
    const I o = Point::bits(simd::fma(odd, of_odd.inverse, added));
    fractions = simd::min_words(fractions, simd::min_words(e, o));
    codes[c / pair] = paired<Bits>(e, o);
    if constexpr (Signed) codes[c / pair] = simd::ixor(codes[c / pair], simd::iset1(Point::sign << 16));
  }
  return simd::low_words_above(fractions, 2 * Point::nudge);
}

// The same by division.
template <kvlab_dtype D, unsigned Bits>
[[gnu::noinline]] void exact_codes(const EncodeSetting& s, const void* x, std::uint64_t count, const Scaling& of_even,
                                   const Scaling& of_odd, I* codes) {
  const F high = simd::set1(high_of(s));
  const F low = s.is_signed ? simd::sub(simd::zero(), high) : simd::zero();
  const auto code = [&](F number, const Scaling& by) __attribute__((always_inline)) {
    const F q = simd::max(low, simd::min(simd::div(simd::sub(number, by.zero), by.scale), high));
    // Adding 1.5 * 2^23 leaves no bits below the unit.
    const F sum = simd::add(simd::keep_if_above(q, by.scale, simd::zero()), simd::set1(12582912.0F));
    return simd::shift_left_32<16>(simd::bits_of(sum));
  };
  for (std::uint64_t c = 0; c < count; c += pair) {
    F even;
    F odd;
    simd::load_pair<D>(x, c, even, odd);
    codes[c / pair] = paired<Bits>(code(even, of_even), code(odd, of_odd));
  }
}

// What body(dtype, is_signed) says, both known to the compiler.
template <class Body>
bool choose_kernel(const EncodeSetting& s, const kvlab_view& view, Body body) {
  const auto by_sign = [&](auto dtype) {
    return s.is_signed ? body(dtype, Constant<1>{}) : body(dtype, Constant<0>{});
  };
  if (view.dtype == KVLAB_F32) return by_sign(Constant<KVLAB_F32>{});
  if (view.dtype == KVLAB_BF16) return by_sign(Constant<KVLAB_BF16>{});
  return by_sign(Constant<KVLAB_F16>{});
}

}  // namespace
