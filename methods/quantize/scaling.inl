// Scales and zeros of segments, the elements that share a scale, a register of them at a time; included by kernels.inl.
//
// Extremes are sought among integers in the order of the numbers; those of 16 bits are compared as they lie, two an
// integer of 32 bits.

namespace {

using quantize::EncodeSetting;

template <kvlab_dtype D>
constexpr std::uint64_t element_bytes = D == KVLAB_F32 ? 4 : 2;

// ---- extremes ------------------------------------------------------------------------------------------------------

template <kvlab_dtype D>
KVLAB_SIMD I ordered(I bits) {
  return D == KVLAB_F32 ? simd::ordered_32(bits) : simd::ordered_16(bits);
}

// The largest (symmetric: of the magnitudes), and the least.
template <kvlab_dtype D, bool Signed>
struct Extremes {
  static constexpr bool wide = D == KVLAB_F32;
  I most = simd::iset1(static_cast<int>(Signed ? 0U : wide ? 0x80000000U : 0x80008000U));
  I lowest = simd::iset1(wide ? 0x7FFFFFFF : 0x7FFF7FFF);

  KVLAB_MEMBER void include(I bits) {
    const I x = Signed ? simd::iand(bits, simd::iset1(wide ? 0x7FFFFFFF : 0x7FFF7FFF)) : ordered<D>(bits);
    most = wide ? simd::max_signed_32(most, x) : simd::max_signed_16(most, x);
    if constexpr (!Signed) lowest = wide ? simd::min_signed_32(lowest, x) : simd::min_signed_16(lowest, x);
  }
};

// The numbers again: of 16 bits those in the upper halves.
template <kvlab_dtype D>
KVLAB_SIMD F number_of(I order) {
  if constexpr (D == KVLAB_F32) return simd::as_float(ordered<D>(order));
  const I bits = simd::iand(ordered<D>(order), simd::iset1(static_cast<int>(0xFFFF0000U)));
  if constexpr (D == KVLAB_BF16) return simd::as_float(bits);
  F even;
  F odd;
  simd::f16_pair(bits, even, odd);
  return odd;
}

// ---- scales --------------------------------------------------------------------------------------------------------

KVLAB_SIMD float high_of(const EncodeSetting& s) {
  return static_cast<float>(s.is_signed ? (1 << (s.bits - 1)) - 1 : (1 << s.bits) - 1);
}

KVLAB_SIMD std::uint64_t scale_size(const EncodeSetting& s) { return s.scale_dtype == 2 ? 4 : 2; }

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
KVLAB_SIMD void store_scales(const EncodeSetting& s, F x, std::uint64_t now, std::uint8_t* to) {
  alignas(64) std::uint8_t all[simd::bytes];
  if (s.scale_dtype == 0) {
    simd::store_f16(reinterpret_cast<std::uint16_t*>(all), x);
  } else if (s.scale_dtype == 1) {
    simd::store_bf16(reinterpret_cast<std::uint16_t*>(all), x);
  } else {
    simd::store(reinterpret_cast<float*>(all), x);
  }
  __builtin_memcpy(to, all, now * scale_size(s));
}

struct Scaling {
  F scale;
  F inverse;  // of the scale; 0 of 0
  F zero;
};

// Of segments with these largest and least values (symmetric: the largest magnitude, and 0).
KVLAB_SIMD Scaling fit(const EncodeSetting& s, F largest, F smallest) {
  const F high = simd::set1(high_of(s));
  Scaling by;
  by.zero = s.is_signed ? simd::zero() : simd::add(rounded_as(s.scale_dtype, smallest), simd::zero());  // never -0
  const F range = s.is_signed ? largest : simd::max(simd::sub(largest, by.zero), simd::zero());
  by.scale = rounded_as(s.scale_dtype, simd::div(range, high));
  by.inverse = simd::keep_if_above(simd::div(simd::set1(1), by.scale), by.scale, simd::zero());
  return by;
}

// Whether the largest codes, and so all, decode to finite numbers.
KVLAB_SIMD bool decodes_finite(const EncodeSetting& s, const Scaling& by) {
  const F top = simd::mul(by.scale, simd::set1(high_of(s)));
  const F largest = simd::max(simd::absolute(top), simd::absolute(simd::add(top, by.zero)));
  return simd::all_at_most(largest, simd::set1(0x1.FFFFFEp127F));
}

// 0 where products with the inverse will do: it is finite (for a scale of 0 it is 0, and then all codes are), and no
// product leaves the codes by half a step. So not where a scale is below f16's normal numbers and lost digits, not
// where it was cut off at f16's end, and not where rounding a zero or a scale left an extreme outside. (Symmetric codes
// have no zero, and a scale that was rounded by 2^-9 moves the largest of 127 steps by a quarter of one.)
KVLAB_SIMD F doubt_of(const EncodeSetting& s, F largest, F smallest, const Scaling& by) {
  const F one = simd::set1(1);
  F good = simd::keep_if_above(one, by.scale, simd::set1(s.scale_dtype == 0 ? 6.2e-5F : 1e-30F));
  if (s.scale_dtype == 0) good = simd::keep_if_above(good, simd::set1(65504.0F), by.scale);
  if (!s.is_signed) {
    const auto product = [&](F x)
                             __attribute__((always_inline)) { return simd::mul(simd::sub(x, by.zero), by.inverse); };
    good = simd::keep_if_above(good, product(smallest), simd::set1(-0.49F));
    good = simd::keep_if_above(good, simd::set1(high_of(s) + 0.49F), product(largest));
  }
  return simd::keep_if_above(simd::sub(one, good), by.scale, simd::zero());
}

}  // namespace
