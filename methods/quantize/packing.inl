// Codes packed, unpacked and transposed, scales as f32; included by kernels.inl.

namespace {

// Eight codes lie in `bits` bytes: pdep puts each into a byte of its own.
void unpack(const std::uint8_t* row, unsigned bits, bool is_signed, std::uint64_t count, std::uint8_t* out) {
  constexpr std::uint64_t each = 0x0101010101010101U;
  const std::uint64_t mask = each * ((1U << bits) - 1U);
  const std::uint64_t sign = is_signed ? each << (bits - 1) : 0;
  constexpr std::uint64_t top = each << 7;
  for (std::uint64_t i = 0; i < count; i += 8, row += bits) {
    std::uint64_t packed;
    __builtin_memcpy(&packed, row, sizeof packed);
    std::uint64_t codes = _pdep_u64(packed, mask);
    // Sign-extended a byte at a time: the bit at the top keeps a borrow from leaving its byte.
    codes = (((codes ^ sign) | top) - sign) ^ top;
    __builtin_memcpy(out + i, &codes, sizeof codes);
  }
}

// The other way round: the low bits of `count` bytes, packed; the last byte written is the last that they fill.
void pack(const std::uint8_t* bytes, unsigned bits, std::uint64_t count, std::uint8_t* out) {
  const std::uint64_t mask = 0x0101010101010101U * ((1U << bits) - 1U);
  std::uint64_t i = 0;
  for (; i + 8 <= count; i += 8, out += bits) {
    std::uint64_t codes;
    __builtin_memcpy(&codes, bytes + i, sizeof codes);
    codes = _pext_u64(codes, mask);
    __builtin_memcpy(out, &codes, bits);
  }
  if (i == count) return;
  std::uint64_t codes = 0;
  __builtin_memcpy(&codes, bytes + i, count - i);
  codes = _pext_u64(codes, mask);
  __builtin_memcpy(out, &codes, ((count - i) * bits + 7) / 8);
}

void load_scales(const std::uint8_t* from, unsigned dtype, std::uint64_t count, float* out) {
  if (dtype == 2) {
    __builtin_memcpy(out, from, count * sizeof(float));
    return;
  }
  const auto* bits = reinterpret_cast<const std::uint16_t*>(from);
  std::uint64_t i = 0;
  for (; i + simd::floats <= count; i += simd::floats) {
    simd::store(out + i, dtype == 0 ? simd::load_f16(bits + i) : simd::load_bf16(bits + i));
  }
  for (; i < count; ++i) {
    std::uint16_t half;
    __builtin_memcpy(&half, bits + i, sizeof half);
    out[i] = dtype == 0 ? _cvtsh_ss(half) : simd::bf16_one(half);
  }
}

float dot(const float* a, const float* b, std::uint64_t count) {
  F total = simd::zero();
  for (std::uint64_t i = 0; i < count; i += simd::floats) {
    const int now = static_cast<int>(least(count - i, simd::floats));
    total = simd::fma(simd::load_first(a + i, now), simd::load_first(b + i, now), total);
  }
  return simd::sum(total);
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

}  // namespace
