// Blocks with scales per token; included by kernels.inl. Segments go by as many as a register has elements, so that
// their scales are computed side by side.

namespace {

constexpr std::int64_t tokens_ahead = 8192;  // bytes

template <kvlab_dtype D, bool Signed>
KVLAB_SIMD Extremes<D, Signed> extremes(const void* x, std::uint64_t group) {
  Extremes<D, Signed> found;
#pragma GCC unroll 8
  for (std::uint64_t at = 0; at < group * element_bytes<D>; at += simd::bytes) {
    found.include(simd::iload(static_cast<const char*>(x) + at));
  }
  return found;
}

// Each half of an integer holds a number: the larger, in the upper half.
template <kvlab_dtype D>
KVLAB_SIMD I larger_half(I order) {
  return D == KVLAB_F32 ? order : simd::max_signed_32(order, simd::shift_left_32<16>(order));
}

// Bits: 8, 4, or 0 for the others, which go by bytes.
template <unsigned Bits, unsigned Group>
KVLAB_SIMD void store_codes(const EncodeSetting& s, const I* codes, std::uint64_t group, std::uint8_t* out) {
  const auto put = [&](void* to, auto x) __attribute__((always_inline)) {
    if (s.past_caches) {
      simd::stream(to, x);
    } else {
      simd::istore(to, x);
    }
  };
  if constexpr (Bits == 0) {
    alignas(64) std::uint8_t bytes[quantize::most_channels];
    for (std::uint64_t i = 0; i < group / pair; ++i) simd::istore(bytes + i * pair, simd::upper_words(codes[i]));
    pack(bytes, s.bits, group, out);
  } else if constexpr (Bits == 8 && Group > 0 && Group % (2 * pair) == 0) {
    for (std::uint64_t i = 0; i < group / pair; i += 2) put(out + i * pair, simd::upper_words(codes[i], codes[i + 1]));
  } else if constexpr (Bits == 4 && Group > 0 && Group % (4 * pair) == 0) {
    for (std::uint64_t i = 0; i < group / pair; i += 4) {
      put(out + i * pair / 2, simd::third_bytes(codes[i], codes[i + 1], codes[i + 2], codes[i + 3]));
    }
  } else {
    for (std::uint64_t i = 0; i < group / pair; ++i) {
      if constexpr (Bits == 8) put(out + i * pair, simd::upper_words(codes[i]));
      if constexpr (Bits == 4) put(out + i * pair / 2, simd::third_bytes(codes[i]));
    }
  }
}

// As many segments as a register has elements.
struct Fits {
  alignas(64) float scale[simd::floats];
  alignas(64) float inverse[simd::floats];
  alignas(64) float zero[simd::floats];
  alignas(64) float doubt[simd::floats];

  KVLAB_MEMBER void keep(const Scaling& by, F in_doubt) {
    simd::store(scale, by.scale);
    simd::store(inverse, by.inverse);
    simd::store(zero, by.zero);
    simd::store(doubt, in_doubt);
  }
  [[nodiscard]] KVLAB_MEMBER Scaling of(std::uint64_t i) const {
    return {simd::set1(scale[i]), simd::set1(inverse[i]), simd::set1(zero[i])};
  }
};

// Group: known ones make straight code; 0 for the others.
template <kvlab_dtype D, unsigned Bits, bool Signed, unsigned Group>
bool encode_segments(const EncodeSetting& s, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                     std::uint8_t* zeros) {
  const std::uint64_t group = Group == 0 ? s.group : Group;
  const std::uint64_t groups = view.channels / group;
  const std::uint64_t segments = view.tokens * groups;
  const std::uint64_t segment_bytes = group * s.bits / 8;
  const auto stride = static_cast<std::uint64_t>(view.token_stride);
  const auto at = [&](std::uint64_t p) __attribute__((always_inline)) {
    const std::uint64_t offset = groups == 1 ? p * stride : p / groups * stride + p % groups * group;
    return static_cast<const std::uint8_t*>(view.base) + offset * element_bytes<D>;
  };
  I most[simd::floats] = {};
  I lowest_not[simd::floats] = {};  // its complement: of the largest there is a reduction
  Fits fits;
  bool finite = true;
  for (std::uint64_t p = 0; p < segments; p += simd::floats) {
    const std::uint64_t now = least(segments - p, simd::floats);
    for (std::uint64_t i = 0; i < now; ++i) {
      const auto found = extremes<D, Signed>(at(p + i), group);
      most[i] = larger_half<D>(found.most);
      if constexpr (!Signed) lowest_not[i] = larger_half<D>(simd::inot(found.lowest));
    }
    const F largest = number_of<D>(simd::max_each(most));
    const F smallest = Signed ? simd::zero() : number_of<D>(simd::inot(simd::max_each(lowest_not)));
    const Scaling all = fit(s, largest, smallest);
    finite &= decodes_finite(s, all);
    store_scales(s, all.scale, now, scales + p * scale_size(s));
    if constexpr (!Signed) store_scales(s, all.zero, now, zeros + p * scale_size(s));
    fits.keep(all, doubt_of(s, largest, smallest, all));
    for (std::uint64_t i = 0; i < now; ++i) {
      I of_segment[(Group == 0 ? quantize::most_channels : Group) / pair];
      const std::uint8_t* x = at(p + i);
      const Scaling by = fits.of(i);
      if (fits.doubt[i] != 0 || !quick_codes<D, Bits, Signed>(x, group, by, by, tokens_ahead, of_segment)) {
        exact_codes<D, Bits>(s, x, group, by, by, of_segment);
      }
      store_codes<Bits, Group>(s, of_segment, group, codes + (p + i) * segment_bytes);
    }
  }
  if (s.past_caches) simd::fence();
  return finite;
}

template <kvlab_dtype D, bool Signed>
bool encode_tokens_of(const EncodeSetting& s, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                      std::uint8_t* zeros) {
  const auto by_group = [&](auto bits) {
    constexpr auto width = static_cast<unsigned>(decltype(bits)::value);
    if (s.group == 128) return encode_segments<D, width, Signed, 128>(s, view, codes, scales, zeros);
    if (s.group == 32) return encode_segments<D, width, Signed, 32>(s, view, codes, scales, zeros);
    return encode_segments<D, width, Signed, 0>(s, view, codes, scales, zeros);
  };
  if (s.bits == 8) return by_group(Constant<8>{});
  if (s.bits == 4) return by_group(Constant<4>{});
  return encode_segments<D, 0, Signed, 0>(s, view, codes, scales, zeros);
}

bool encode_tokens(const EncodeSetting& s, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                   std::uint8_t* zeros) {
  return choose_kernel(s, view, [&](auto dtype, auto is_signed) {
    return encode_tokens_of < static_cast<kvlab_dtype>(decltype(dtype)::value),
           decltype(is_signed)::value != 0 > (s, view, codes, scales, zeros);
  });
}

}  // namespace
