// The vector instructions that kernels are written in, one name a meaning, for the instruction set that the including
// file is compiled for (isa.hpp): AVX-512 with or without VNNI, else AVX2. Include it in such files only, and keep
// everything else of the file in an anonymous namespace: an inline function that two files compile with different
// flags would be one of the two in both.
//
//   Floats   `floats` f32                       I  one register of integers: `bytes` bytes
//   "even, odd"  two registers that hold elements 0, 2, 4 ... and 1, 3, 5 ... of 2 * floats neighbours: what a shift
//                and a mask make of bf16, with no instruction across lanes
#pragma once

#if defined(__AVX512BW__)
#include <kvlab/simd/avx512.hpp>
#elif defined(__AVX2__)
#include <kvlab/simd/avx2.hpp>
#else
#error "kvlab/simd.hpp: this file is not compiled for an instruction set; see kvlab/isa.hpp"
#endif

#include <kvlab/abi.h>

namespace {
namespace simd {

// 2 * floats channels of a row from `channel` on, as f32.
template <kvlab_dtype D>
KVLAB_SIMD void load_pair(const void* row, std::uint64_t channel, F& even, F& odd) {
  if constexpr (D == KVLAB_F32) {
    const float* p = static_cast<const float*>(row) + channel;
    split(load(p), load(p + floats), even, odd);
  } else {
    const I words = load_words(static_cast<const std::uint16_t*>(row) + channel);
    if constexpr (D == KVLAB_BF16) {
      bf16_pair(words, even, odd);
    } else {
      f16_pair(words, even, odd);
    }
  }
}

// The last channels of a row, zeros after them.
template <kvlab_dtype D>
KVLAB_SIMD void load_pair(const void* row, std::uint64_t channel, int count, F& even, F& odd) {
  if constexpr (D == KVLAB_F32) {
    const float* p = static_cast<const float*>(row) + channel;
    split(load_first(p, count), load_first(p + floats, count - floats), even, odd);
  } else {
    const I words = load_words(static_cast<const std::uint16_t*>(row) + channel, count);
    if constexpr (D == KVLAB_BF16) {
      bf16_pair(words, even, odd);
    } else {
      f16_pair(words, even, odd);
    }
  }
}

// The sums, and the largest, of the elements of each of `floats` registers, side by side in their order.
KVLAB_SIMD I sum_each(const I* v) {
  return reduce_each(v, [](I a, I b) __attribute__((always_inline)) { return iadd(a, b); });
}
KVLAB_SIMD I max_each(const I* v) {
  return reduce_each(v, [](I a, I b) __attribute__((always_inline)) { return max_signed_32(a, b); });
}
KVLAB_SIMD F sum_each(const F* v) {
  I bits[floats];
#pragma GCC unroll 16
  for (int i = 0; i < floats; ++i) bits[i] = bits_of(v[i]);
  const auto sum_of = [](I a, I b) __attribute__((always_inline)) { return bits_of(add(as_float(a), as_float(b))); };
  return as_float(reduce_each(bits, sum_of));
}

}  // namespace simd
}  // namespace
