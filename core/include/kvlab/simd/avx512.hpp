// kvlab/simd.hpp for AVX-512; products of 16-bit integers by VNNI where the file is compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define KVLAB_SIMD static inline __attribute__((always_inline))
#define KVLAB_MEMBER __attribute__((always_inline))

namespace {
namespace simd {

using I = __m512i;
using F = __m512;
constexpr int bytes = 64;
constexpr int floats = 16;
constexpr int lanes = 4;  // of 128 bits

// ---- f32 ---------------------------------------------------------------------------------------------------------

KVLAB_SIMD F zero() { return _mm512_setzero_ps(); }
KVLAB_SIMD F set1(float x) { return _mm512_set1_ps(x); }
KVLAB_SIMD F load(const float* p) { return _mm512_loadu_ps(p); }
KVLAB_SIMD void store(float* p, F x) { _mm512_storeu_ps(p, x); }
KVLAB_SIMD F add(F a, F b) { return _mm512_add_ps(a, b); }
KVLAB_SIMD F sub(F a, F b) { return _mm512_sub_ps(a, b); }
KVLAB_SIMD F mul(F a, F b) { return _mm512_mul_ps(a, b); }
KVLAB_SIMD F div(F a, F b) { return _mm512_div_ps(a, b); }
KVLAB_SIMD F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
KVLAB_SIMD F max(F a, F b) { return _mm512_max_ps(a, b); }
KVLAB_SIMD F min(F a, F b) { return _mm512_min_ps(a, b); }
KVLAB_SIMD F absolute(F a) { return _mm512_abs_ps(a); }
KVLAB_SIMD F round_even(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
KVLAB_SIMD float sum(F a) { return _mm512_reduce_add_ps(a); }
KVLAB_SIMD float largest(F a) { return _mm512_reduce_max_ps(a); }
KVLAB_SIMD bool all_at_most(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ) == 0xFFFF; }  // false for NaN
// Whether any element is infinite or NaN.
KVLAB_SIMD bool any_not_finite(F a) { return _mm512_fpclass_ps_mask(a, 0x99) != 0; }
// a where c > d, else 0.
KVLAB_SIMD F keep_if_above(F a, F c, F d) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(c, d, _CMP_GT_OQ), a); }
// x * 2^n for whole n.
KVLAB_SIMD F scale_by_power(F x, F n) { return _mm512_scalef_ps(x, n); }
KVLAB_SIMD F first(F a, int count) { return _mm512_maskz_mov_ps(static_cast<__mmask16>((1U << count) - 1U), a); }

// 2 * floats neighbours <-> even and odd.
KVLAB_SIMD void split(F a, F b, F& even, F& odd) {
  const I evens = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  even = _mm512_permutex2var_ps(a, evens, b);
  odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(evens, _mm512_set1_epi32(1)), b);
}
KVLAB_SIMD void join(F even, F odd, F& a, F& b) {
  const I low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  a = _mm512_permutex2var_ps(even, low, odd);
  b = _mm512_permutex2var_ps(even, _mm512_add_epi32(low, _mm512_set1_epi32(8)), odd);
}

// The first `count` < 2 * floats elements there, zeros after them; nothing beyond is read.
KVLAB_SIMD I load_words(const std::uint16_t* p) { return _mm512_loadu_si512(p); }
KVLAB_SIMD I load_words(const std::uint16_t* p, int count) {
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((std::uint64_t{1} << count) - 1U), p);
}
KVLAB_SIMD void bf16_pair(I words, F& even, F& odd) {
  even = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
  odd = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))));
}
KVLAB_SIMD void f16_pair(I words, F& even, F& odd) {
  split(_mm512_cvtph_ps(_mm512_castsi512_si256(words)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64(words, 1)), even,
        odd);
}
KVLAB_SIMD F load_first(const float* p, int count) {
  if (count <= 0) return zero();
  return count >= floats ? load(p) : _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << count) - 1U), p);
}
KVLAB_SIMD void store_first(float* p, F x, int count) {
  if (count > 0)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((std::uint64_t{1} << (count < 16 ? count : 16)) - 1U), x);
}
KVLAB_SIMD F load_f16(const std::uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
KVLAB_SIMD F load_bf16(const std::uint16_t* p) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
KVLAB_SIMD float bf16_one(std::uint16_t bits) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(std::uint32_t{bits} << 16))));
}
// Rounded to nearest even, and back.
KVLAB_SIMD F round_f16(F x) { return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
KVLAB_SIMD F round_bf16(F x) {  // not for NaN
  const I bits = _mm512_castps_si512(x);
  const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const I up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))));
}
KVLAB_SIMD void store_bf16(std::uint16_t* p, F x) {  // of what is a bf16
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(x), 16)));
}
KVLAB_SIMD void store_f16(std::uint16_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

// ---- integers ----------------------------------------------------------------------------------------------------

KVLAB_SIMD I izero() { return _mm512_setzero_si512(); }
KVLAB_SIMD I iset1(std::int32_t x) { return _mm512_set1_epi32(x); }
KVLAB_SIMD I iset1_16(std::int16_t x) { return _mm512_set1_epi16(x); }
KVLAB_SIMD I iload(const void* p) { return _mm512_loadu_si512(p); }
KVLAB_SIMD void istore(void* p, __m128i x) { _mm_storeu_si128(static_cast<__m128i*>(p), x); }
KVLAB_SIMD void istore(void* p, __m256i x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
KVLAB_SIMD void istore(void* p, I x) { _mm512_storeu_si512(p, x); }
KVLAB_SIMD I iadd(I a, I b) { return _mm512_add_epi32(a, b); }
KVLAB_SIMD I isub(I a, I b) { return _mm512_sub_epi32(a, b); }
KVLAB_SIMD I iand(I a, I b) { return _mm512_and_si512(a, b); }
KVLAB_SIMD I ixor(I a, I b) { return _mm512_xor_si512(a, b); }
KVLAB_SIMD I ior(I a, I b) { return _mm512_or_si512(a, b); }
KVLAB_SIMD I inot(I a) { return _mm512_ternarylogic_epi32(a, a, a, 0x55); }
KVLAB_SIMD I choose(I mask, I a, I b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xCA); }  // a where mask is set
template <int N>
KVLAB_SIMD I shift_left_32(I a) {
  return _mm512_slli_epi32(a, N);
}
KVLAB_SIMD I shift_left_32(I a, int n) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128(n)); }
template <int N>
KVLAB_SIMD I shift_right_32(I a) {
  return _mm512_srli_epi32(a, N);
}
template <int N>
KVLAB_SIMD I shift_right_16(I a) {
  return _mm512_srli_epi16(a, N);
}
template <int N>
KVLAB_SIMD I shift_right_16_signed(I a) {
  return _mm512_srai_epi16(a, N);
}
KVLAB_SIMD I min_words(I a, I b) { return _mm512_min_epu16(a, b); }  // unsigned
KVLAB_SIMD I min_signed_16(I a, I b) { return _mm512_min_epi16(a, b); }
KVLAB_SIMD I min_signed_32(I a, I b) { return _mm512_min_epi32(a, b); }
KVLAB_SIMD I max_signed_16(I a, I b) { return _mm512_max_epi16(a, b); }
KVLAB_SIMD I max_signed_32(I a, I b) { return _mm512_max_epi32(a, b); }
// Whether the low 16 bits of each 32 are above x.
KVLAB_SIMD bool low_words_above(I a, int x) {
  return _mm512_mask_cmple_epu16_mask(0x55555555U, a, _mm512_set1_epi16(static_cast<short>(x))) == 0;
}
// Bits of floats (f32; bf16 or f16) as integers in the same order, and back.
KVLAB_SIMD I ordered_32(I a) {  // a ^ (sign & 0x7F..): the ternary operation is that
  return _mm512_ternarylogic_epi32(a, _mm512_srai_epi32(a, 31), _mm512_set1_epi32(0x7FFFFFFF), 0x78);
}
KVLAB_SIMD I ordered_16(I a) {
  return _mm512_ternarylogic_epi32(a, _mm512_srai_epi16(a, 15), _mm512_set1_epi16(0x7FFF), 0x78);
}
KVLAB_SIMD F as_float(I a) { return _mm512_castsi512_ps(a); }
KVLAB_SIMD F to_float(I a) { return _mm512_cvtepi32_ps(a); }
KVLAB_SIMD I bits_of(F a) { return _mm512_castps_si512(a); }
KVLAB_SIMD I to_int(F a) { return _mm512_cvtps_epi32(a); }  // nearest, ties to even
// bytes / 2 signed or unsigned bytes as 16-bit words.
KVLAB_SIMD I widen_signed(const void* p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
KVLAB_SIMD I widen_unsigned(const void* p) {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
// `floats` bytes as 32-bit integers.
KVLAB_SIMD I widen_signed_32(const void* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
KVLAB_SIMD I widen_unsigned_32(const void* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
// a + x0 * y0 + x1 * y1 for each 32 bits: two products of 16-bit integers.
KVLAB_SIMD I dot_words(I a, I x, I y) {
#if defined(__AVX512VNNI__)
  // The intrinsic's third operand costs g++ 12 a copy of a register a product, half of the time of a loop over them.
  asm("vpdpwssd %2, %1, %0" : "+v"(a) : "v"(x), "vm"(y));
  return a;
#else
  return _mm512_add_epi32(a, _mm512_madd_epi16(x, y));
#endif
}
KVLAB_SIMD I interleave_low_16(I a, I b) { return _mm512_unpacklo_epi16(a, b); }
KVLAB_SIMD I interleave_high_16(I a, I b) { return _mm512_unpackhi_epi16(a, b); }
KVLAB_SIMD I interleave_low_32(I a, I b) { return _mm512_unpacklo_epi32(a, b); }
KVLAB_SIMD I interleave_high_32(I a, I b) { return _mm512_unpackhi_epi32(a, b); }
KVLAB_SIMD I interleave_low_64(I a, I b) { return _mm512_unpacklo_epi64(a, b); }
KVLAB_SIMD I interleave_high_64(I a, I b) { return _mm512_unpackhi_epi64(a, b); }
// f32 p[i] for the 16 places in `indexes`, of at most 16 elements.
KVLAB_SIMD F lookup(F table, I indexes) { return _mm512_permutexvar_ps(indexes, table); }
KVLAB_SIMD I ilookup(I table, I indexes) { return _mm512_permutexvar_epi32(indexes, table); }
// Wraps, which _mm512_reduce_add_epi32 leaves undefined in g++.
KVLAB_SIMD std::int32_t sum_int(I a) {
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
  __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xB1)));
}
KVLAB_SIMD std::int32_t largest_int(I a) { return _mm512_reduce_max_epi32(a); }
KVLAB_SIMD void store_half(void* p, I a) { _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_castsi512_si256(a)); }
// The low 16 bits of each 32-bit integer.
KVLAB_SIMD void store_words(void* p, I a) { _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a)); }
// Of each 32-bit integer the upper 16 bits, and the lower 8 of those.
KVLAB_SIMD __m256i upper_words(I a) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16)); }
KVLAB_SIMD I upper_words(I a, I b) {
  const I evens = _mm512_cvtepu8_epi16(_mm256_set_epi8(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32,
                                                       30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0));
  const I odd = _mm512_add_epi16(evens, _mm512_set1_epi16(1));
  return _mm512_permutex2var_epi16(a, odd, b);
}
KVLAB_SIMD __m128i third_bytes(I a) {
#if defined(__AVX512VBMI__)
  const I thirds = _mm512_broadcast_i32x4(_mm_set_epi8(62, 58, 54, 50, 46, 42, 38, 34, 30, 26, 22, 18, 14, 10, 6, 2));
  return _mm512_castsi512_si128(_mm512_permutexvar_epi8(thirds, a));
#else
  return _mm512_cvtepi32_epi8(_mm512_srli_epi32(a, 16));
#endif
}
KVLAB_SIMD I third_bytes(I a, I b, I c, I d) {
#if defined(__AVX512VBMI__)
  const I thirds =
      _mm512_castsi256_si512(_mm256_set_epi8(126, 122, 118, 114, 110, 106, 102, 98, 94, 90, 86, 82, 78, 74, 70, 66, 62,
                                             58, 54, 50, 46, 42, 38, 34, 30, 26, 22, 18, 14, 10, 6, 2));
  const I low = _mm512_permutex2var_epi8(a, thirds, b);
  return _mm512_inserti64x4(low, _mm512_castsi512_si256(_mm512_permutex2var_epi8(c, thirds, d)), 1);
#else
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(upper_words(a, b))),
                            _mm512_cvtepi16_epi8(upper_words(c, d)), 1);
#endif
}

// What `op` makes of the elements of each of 16 registers, side by side in their order.
template <class Op>
KVLAB_SIMD I reduce_each(const I* v, Op op) {
  I t[8];
  I u[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[i] = op(interleave_low_32(v[2 * i], v[2 * i + 1]), interleave_high_32(v[2 * i], v[2 * i + 1]));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    u[i] = op(interleave_low_64(t[2 * i], t[2 * i + 1]), interleave_high_64(t[2 * i], t[2 * i + 1]));
  }
  // u[i]: in each lane what is made of that lane of registers 4i .. 4i+3.
  const auto lanes_of = [op](I a, I b) __attribute__((always_inline)) {
    return op(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xDD));
  };
  return lanes_of(lanes_of(u[0], u[1]), lanes_of(u[2], u[3]));
}

// Past the caches: p is aligned to what is written. Ends with fence().
KVLAB_SIMD void stream(void* p, __m128i x) { _mm_stream_si128(static_cast<__m128i*>(p), x); }
KVLAB_SIMD void stream(void* p, __m256i x) { _mm256_stream_si256(static_cast<__m256i*>(p), x); }
KVLAB_SIMD void stream(void* p, I x) { _mm512_stream_si512(static_cast<__m512i*>(p), x); }
KVLAB_SIMD void fence() { _mm_sfence(); }

}  // namespace simd
}  // namespace
