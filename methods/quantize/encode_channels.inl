// Blocks with scales per channel (codes of a channel's tokens in a row), as many channels at once as a register has
// 16-bit words; included by kernels.inl. Tokens are coded one after another, and tiles of 16 rows of bytes transposed.

namespace {

// The scales of `pair` channels from c on.
struct ChannelScales {
  Scaling even;
  Scaling odd;
  bool doubt;   // of any
  bool finite;  // all decode to finite numbers
};

struct EvenOdd {
  F even;
  F odd;
};

template <kvlab_dtype D, bool Signed>
KVLAB_SIMD ChannelScales fit_channels(const EncodeSetting& s, const std::uint8_t* x, std::uint64_t row_step,
                                      std::uint64_t tokens, std::uint8_t* scales, std::uint8_t* zeros) {
  constexpr std::uint64_t registers = pair * element_bytes<D> / simd::bytes;
  Extremes<D, Signed> found[registers];
  for (std::uint64_t t = 0; t < tokens; ++t) {
    for (std::uint64_t r = 0; r < registers; ++r) {
      const std::uint8_t* from = x + t * row_step + r * simd::bytes;
      _mm_prefetch(reinterpret_cast<const char*>(from + 16 * row_step), _MM_HINT_T0);
      found[r].include(simd::iload(from));
    }
  }
  const auto numbers = [&](auto of) __attribute__((always_inline)) {
    EvenOdd made;
    if constexpr (D == KVLAB_F32) {
      simd::split(number_of<D>(of(found[0])), number_of<D>(of(found[registers - 1])), made.even, made.odd);
    } else {
      made.even = number_of<D>(simd::shift_left_32<16>(of(found[0])));
      made.odd = number_of<D>(of(found[0]));
    }
    return made;
  };
  const EvenOdd largest = numbers([](const auto& f) __attribute__((always_inline)) { return f.most; });
  const EvenOdd smallest = Signed ? EvenOdd{simd::zero(), simd::zero()}
                                  : numbers([](const auto& f) __attribute__((always_inline)) { return f.lowest; });
  const ChannelScales by{fit(s, largest.even, smallest.even), fit(s, largest.odd, smallest.odd), false, false};
  const auto store = [&](F even, F odd, std::uint8_t* to) __attribute__((always_inline)) {
    F first;
    F second;
    simd::join(even, odd, first, second);
    store_scales(s, first, simd::floats, to);
    store_scales(s, second, simd::floats, to + simd::floats * scale_size(s));
  };
  store(by.even.scale, by.odd.scale, scales);
  if constexpr (!Signed) store(by.even.zero, by.odd.zero, zeros);
  const F doubt =
      simd::max(doubt_of(s, largest.even, smallest.even, by.even), doubt_of(s, largest.odd, smallest.odd, by.odd));
  return {by.even, by.odd, !simd::all_at_most(doubt, simd::zero()),
          decodes_finite(s, by.even) && decodes_finite(s, by.odd)};
}

// channels a multiple of `pair`; `bytes` is scratch of pair * (tokens + 15).
template <kvlab_dtype D, bool Signed>
bool encode_channel_rows(const EncodeSetting& s, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                         std::uint8_t* zeros, std::uint8_t* bytes) {
  const std::uint64_t tokens = view.tokens;
  const std::uint64_t row_bytes = (tokens * s.bits + 7) / 8;
  const std::uint64_t row_step = static_cast<std::uint64_t>(view.token_stride) * element_bytes<D>;
  // Tokens whose codes share a byte of a tile (0: they share none), and those that go by tiles; the rest is packed.
  const std::uint64_t in_byte = 8 % s.bits == 0 ? 8 / s.bits : 0;
  const std::uint64_t tile = 16 * in_byte;
  const std::uint64_t whole = in_byte == 0 ? 0 : tokens / tile * tile;
  const std::uint64_t rest_stride = (tokens - whole + 15) / 16 * 16;
  const I mask = simd::iset1(static_cast<int>(((1U << s.bits) - 1U) * 0x01010000U));
  alignas(64) std::uint8_t rows[16 * pair] = {};
  bool finite = true;
  for (std::uint64_t c = 0; c < view.channels; c += pair) {
    const std::uint8_t* x = static_cast<const std::uint8_t*>(view.base) + c * element_bytes<D>;
    const ChannelScales by =
        fit_channels<D, Signed>(s, x, row_step, tokens, scales + c * scale_size(s), zeros + c * scale_size(s));
    finite &= by.finite;
    const auto code = [&](std::uint64_t t) __attribute__((always_inline)) {
      I of_token;
      const std::uint8_t* row = x + t * row_step;
      if (by.doubt || !quick_codes<D, 8, Signed>(row, pair, by.even, by.odd, 0, &of_token)) {
        exact_codes<D, 8>(s, row, pair, by.even, by.odd, &of_token);
      }
      return of_token;
    };
    const auto transpose = [&](std::uint8_t* to, std::uint64_t to_stride) __attribute__((always_inline)) {
      for (std::uint64_t i = 0; i < pair; i += 16) transpose_16(rows + i, pair, to + i * to_stride, to_stride);
    };
    std::uint8_t* to = codes + c * row_bytes;
    for (std::uint64_t t = 0; t < whole; t += tile) {
      for (std::uint64_t r = 0; r < 16; ++r) {
        I all = simd::iand(code(t + r * in_byte), mask);
        for (std::uint64_t k = 1; k < in_byte; ++k) {
          const I more = simd::iand(code(t + r * in_byte + k), mask);
          all = simd::ior(all, simd::shift_left_32(more, static_cast<int>(k * s.bits)));
        }
        simd::istore(rows + r * pair, simd::upper_words(all));
      }
      transpose(to + t * s.bits / 8, row_bytes);
    }
    for (std::uint64_t t = whole; t < tokens; t += 16) {
      for (std::uint64_t r = 0; r < least(16, tokens - t); ++r) {
        simd::istore(rows + r * pair, simd::upper_words(code(t + r)));
      }
      transpose(bytes + t - whole, rest_stride);
    }
    for (std::uint64_t i = 0; whole < tokens && i < pair; ++i) {
      pack(bytes + i * rest_stride, s.bits, tokens - whole, to + i * row_bytes + whole * s.bits / 8);
    }
  }
  return finite;
}

bool encode_channels(const EncodeSetting& s, const kvlab_view& view, std::uint8_t* codes, std::uint8_t* scales,
                     std::uint8_t* zeros, std::uint8_t* bytes) {
  return choose_kernel(s, view, [&](auto dtype, auto is_signed) {
    return encode_channel_rows < static_cast<kvlab_dtype>(decltype(dtype)::value),
           decltype(is_signed)::value != 0 > (s, view, codes, scales, zeros, bytes);
  });
}

}  // namespace
