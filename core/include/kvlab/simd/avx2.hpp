// kvlab/simd.hpp for AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define KVLAB_SIMD static inline __attribute__((always_inline))
#define KVLAB_MEMBER __attribute__((always_inline))

namespace {
namespace simd {

using I = __m256i;
using F = __m256;
constexpr int bytes = 32;
constexpr int floats = 8;
constexpr int lanes = 2;  // of 128 bits

// ---- f32 ---------------------------------------------------------------------------------------------------------

KVLAB_SIMD F zero() { return _mm256_setzero_ps(); }
KVLAB_SIMD F set1(float x) { return _mm256_set1_ps(x); }
KVLAB_SIMD F load(const float* p) { return _mm256_loadu_ps(p); }
KVLAB_SIMD void store(float* p, F x) { _mm256_storeu_ps(p, x); }
KVLAB_SIMD F add(F a, F b) { return _mm256_add_ps(a, b); }
KVLAB_SIMD F sub(F a, F b) { return _mm256_sub_ps(a, b); }
KVLAB_SIMD F mul(F a, F b) { return _mm256_mul_ps(a, b); }
KVLAB_SIMD F div(F a, F b) { return _mm256_div_ps(a, b); }
KVLAB_SIMD F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
KVLAB_SIMD F max(F a, F b) { return _mm256_max_ps(a, b); }
KVLAB_SIMD F min(F a, F b) { return _mm256_min_ps(a, b); }
KVLAB_SIMD F absolute(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), a); }
KVLAB_SIMD F round_even(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
template <class Two>
KVLAB_SIMD float reduce(F a, Two two) {
  __m128 x = two(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = two(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(two(x, _mm_shuffle_ps(x, x, 1)));
}
KVLAB_SIMD float sum(F a) {
  return reduce(a, [](__m128 x, __m128 y) { return _mm_add_ps(x, y); });
}
KVLAB_SIMD float largest(F a) {
  return reduce(a, [](__m128 x, __m128 y) { return _mm_max_ps(x, y); });
}
KVLAB_SIMD bool all_at_most(F a, F b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LE_OQ)) == 0xFF; }
KVLAB_SIMD bool any_not_finite(F a) {  // x - x is 0 for finite x alone
  return _mm256_movemask_ps(_mm256_cmp_ps(_mm256_sub_ps(a, a), _mm256_setzero_ps(), _CMP_NEQ_UQ)) != 0;
}
KVLAB_SIMD F keep_if_above(F a, F c, F d) { return _mm256_and_ps(a, _mm256_cmp_ps(c, d, _CMP_GT_OQ)); }
KVLAB_SIMD F scale_by_power(F x, F n) {  // -126 <= n <= 127
  return _mm256_mul_ps(
      x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
}
KVLAB_SIMD __m256i first_mask(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
}
KVLAB_SIMD F first(F a, int count) { return _mm256_and_ps(a, _mm256_castsi256_ps(first_mask(count))); }

KVLAB_SIMD void split(F a, F b, F& even, F& odd) {
  const auto order = [](F x) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xD8)); };
  even = order(_mm256_shuffle_ps(a, b, 0x88));
  odd = order(_mm256_shuffle_ps(a, b, 0xDD));
}
KVLAB_SIMD void join(F even, F odd, F& a, F& b) {
  const F low = _mm256_unpacklo_ps(even, odd);
  const F high = _mm256_unpackhi_ps(even, odd);
  a = _mm256_permute2f128_ps(low, high, 0x20);
  b = _mm256_permute2f128_ps(low, high, 0x31);
}

KVLAB_SIMD I load_words(const std::uint16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
KVLAB_SIMD I load_words(const std::uint16_t* p, int count) {
  alignas(32) std::uint16_t words[16] = {};
  for (int i = 0; i < count; ++i) words[i] = p[i];
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(words));
}
KVLAB_SIMD void bf16_pair(I words, F& even, F& odd) {
  even = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
  odd = _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(static_cast<int>(0xFFFF0000U))));
}
KVLAB_SIMD void f16_pair(I words, F& even, F& odd) {
  split(_mm256_cvtph_ps(_mm256_castsi256_si128(words)), _mm256_cvtph_ps(_mm256_extracti128_si256(words, 1)), even, odd);
}
KVLAB_SIMD F load_first(const float* p, int count) {
  if (count <= 0) return zero();
  return count >= floats ? load(p) : _mm256_maskload_ps(p, first_mask(count));
}
KVLAB_SIMD void store_first(float* p, F x, int count) {
  if (count > 0) _mm256_maskstore_ps(p, first_mask(count), x);
}
KVLAB_SIMD F load_f16(const std::uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
KVLAB_SIMD F load_bf16(const std::uint16_t* p) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
KVLAB_SIMD float bf16_one(std::uint16_t bits) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(std::uint32_t{bits} << 16))));
}
KVLAB_SIMD F round_f16(F x) { return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
KVLAB_SIMD F round_bf16(F x) {
  const I bits = _mm256_castps_si256(x);
  const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const I up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  return _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(static_cast<int>(0xFFFF0000U))));
}
KVLAB_SIMD void store_bf16(std::uint16_t* p, F x) {
  const I high = _mm256_srli_epi32(_mm256_castps_si256(x), 16);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
}
KVLAB_SIMD void store_f16(std::uint16_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

// ---- integers ----------------------------------------------------------------------------------------------------

KVLAB_SIMD I izero() { return _mm256_setzero_si256(); }
KVLAB_SIMD I iset1(std::int32_t x) { return _mm256_set1_epi32(x); }
KVLAB_SIMD I iset1_16(std::int16_t x) { return _mm256_set1_epi16(x); }
KVLAB_SIMD I iload(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
KVLAB_SIMD void istore(void* p, std::int64_t x) { __builtin_memcpy(p, &x, sizeof x); }
KVLAB_SIMD void istore(void* p, __m128i x) { _mm_storeu_si128(static_cast<__m128i*>(p), x); }
KVLAB_SIMD void istore(void* p, I x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
KVLAB_SIMD I iadd(I a, I b) { return _mm256_add_epi32(a, b); }
KVLAB_SIMD I isub(I a, I b) { return _mm256_sub_epi32(a, b); }
KVLAB_SIMD I iand(I a, I b) { return _mm256_and_si256(a, b); }
KVLAB_SIMD I ixor(I a, I b) { return _mm256_xor_si256(a, b); }
KVLAB_SIMD I ior(I a, I b) { return _mm256_or_si256(a, b); }
KVLAB_SIMD I inot(I a) { return _mm256_xor_si256(a, _mm256_set1_epi32(-1)); }
KVLAB_SIMD I choose(I mask, I a, I b) {
  return _mm256_or_si256(_mm256_and_si256(mask, a), _mm256_andnot_si256(mask, b));
}
template <int N>
KVLAB_SIMD I shift_left_32(I a) {
  return _mm256_slli_epi32(a, N);
}
KVLAB_SIMD I shift_left_32(I a, int n) { return _mm256_sll_epi32(a, _mm_cvtsi32_si128(n)); }
template <int N>
KVLAB_SIMD I shift_right_32(I a) {
  return _mm256_srli_epi32(a, N);
}
template <int N>
KVLAB_SIMD I shift_right_16(I a) {
  return _mm256_srli_epi16(a, N);
}
template <int N>
KVLAB_SIMD I shift_right_16_signed(I a) {
  return _mm256_srai_epi16(a, N);
}
KVLAB_SIMD I min_words(I a, I b) { return _mm256_min_epu16(a, b); }
KVLAB_SIMD I min_signed_16(I a, I b) { return _mm256_min_epi16(a, b); }
KVLAB_SIMD I min_signed_32(I a, I b) { return _mm256_min_epi32(a, b); }
KVLAB_SIMD I max_signed_16(I a, I b) { return _mm256_max_epi16(a, b); }
KVLAB_SIMD I max_signed_32(I a, I b) { return _mm256_max_epi32(a, b); }
KVLAB_SIMD bool low_words_above(I a, int x) {
  const I low = _mm256_and_si256(a, _mm256_set1_epi32(0xFFFF));
  return _mm256_movemask_epi8(_mm256_cmpgt_epi32(low, _mm256_set1_epi32(x))) == -1;
}
KVLAB_SIMD I ordered_32(I a) {  // a ^ (sign & 0x7F..)
  return _mm256_xor_si256(a, _mm256_srli_epi32(_mm256_srai_epi32(a, 31), 1));
}
KVLAB_SIMD I ordered_16(I a) { return _mm256_xor_si256(a, _mm256_srli_epi16(_mm256_srai_epi16(a, 15), 1)); }
KVLAB_SIMD F as_float(I a) { return _mm256_castsi256_ps(a); }
KVLAB_SIMD F to_float(I a) { return _mm256_cvtepi32_ps(a); }
KVLAB_SIMD I bits_of(F a) { return _mm256_castps_si256(a); }
KVLAB_SIMD I to_int(F a) { return _mm256_cvtps_epi32(a); }
KVLAB_SIMD I widen_signed(const void* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
KVLAB_SIMD I widen_unsigned(const void* p) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
KVLAB_SIMD I widen_signed_32(const void* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
}
KVLAB_SIMD I widen_unsigned_32(const void* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
}
KVLAB_SIMD I dot_words(I a, I x, I y) { return _mm256_add_epi32(a, _mm256_madd_epi16(x, y)); }
KVLAB_SIMD I interleave_low_16(I a, I b) { return _mm256_unpacklo_epi16(a, b); }
KVLAB_SIMD I interleave_high_16(I a, I b) { return _mm256_unpackhi_epi16(a, b); }
KVLAB_SIMD I interleave_low_32(I a, I b) { return _mm256_unpacklo_epi32(a, b); }
KVLAB_SIMD I interleave_high_32(I a, I b) { return _mm256_unpackhi_epi32(a, b); }
KVLAB_SIMD I interleave_low_64(I a, I b) { return _mm256_unpacklo_epi64(a, b); }
KVLAB_SIMD I interleave_high_64(I a, I b) { return _mm256_unpackhi_epi64(a, b); }
KVLAB_SIMD F lookup(F table, I indexes) { return _mm256_permutevar8x32_ps(table, indexes); }
KVLAB_SIMD I ilookup(I table, I indexes) { return _mm256_permutevar8x32_epi32(table, indexes); }
KVLAB_SIMD std::int32_t sum_int(I a) {
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xB1)));
}
KVLAB_SIMD std::int32_t largest_int(I a) {
  __m128i most = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  most = _mm_max_epi32(most, _mm_shuffle_epi32(most, 0x4E));
  return _mm_cvtsi128_si32(_mm_max_epi32(most, _mm_shuffle_epi32(most, 0xB1)));
}
KVLAB_SIMD void store_half(void* p, I a) { _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_castsi256_si128(a)); }
KVLAB_SIMD __m128i words_of(I a) {
  const I low = _mm256_blend_epi16(a, _mm256_setzero_si256(), 0xAA);
  return _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
}
KVLAB_SIMD void store_words(void* p, I a) { _mm_storeu_si128(static_cast<__m128i*>(p), words_of(a)); }
KVLAB_SIMD __m128i upper_words(I a) {
  a = _mm256_srli_epi32(a, 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}
KVLAB_SIMD I upper_words(I a, I b) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16)), 0xD8);
}
KVLAB_SIMD std::int64_t third_bytes(I a) {
  const __m128i words = _mm_and_si128(upper_words(a), _mm_set1_epi16(255));
  return _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
}
KVLAB_SIMD I third_bytes(I a, I b, I c, I d) {
  const I mask = _mm256_set1_epi16(255);
  return _mm256_permute4x64_epi64(
      _mm256_packus_epi16(_mm256_and_si256(upper_words(a, b), mask), _mm256_and_si256(upper_words(c, d), mask)), 0xD8);
}

// What `op` makes of the elements of each of 8 registers, side by side in their order.
template <class Op>
KVLAB_SIMD I reduce_each(const I* v, Op op) {
  I t[4];
  I u[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = op(interleave_low_32(v[2 * i], v[2 * i + 1]), interleave_high_32(v[2 * i], v[2 * i + 1]));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    u[i] = op(interleave_low_64(t[2 * i], t[2 * i + 1]), interleave_high_64(t[2 * i], t[2 * i + 1]));
  }
  return op(_mm256_permute2x128_si256(u[0], u[1], 0x20), _mm256_permute2x128_si256(u[0], u[1], 0x31));
}

// Past the caches: p is aligned to what is written. Ends with fence().
KVLAB_SIMD void stream(void* p, std::int64_t x) { _mm_stream_si64(static_cast<long long*>(p), x); }
KVLAB_SIMD void stream(void* p, __m128i x) { _mm_stream_si128(static_cast<__m128i*>(p), x); }
KVLAB_SIMD void stream(void* p, I x) { _mm256_stream_si256(static_cast<__m256i*>(p), x); }
KVLAB_SIMD void fence() { _mm_sfence(); }

}  // namespace simd
}  // namespace
