// The vector loops of the core, one table per instruction set (kvlab/isa.hpp): attention over rows of bf16, f16 or f32,
// and the softmax between its two halves. kernels_scalar.cpp is the long-hand reference; rows.inl and softmax.inl are
// the fast paths, compiled once a set, and are held to it by kernels_test.cpp.
#pragma once

#include <kvlab/abi.h>
#include <kvlab/isa.hpp>

#include <cstddef>
#include <cstdint>

namespace kvlab {

struct Kernels {
  // kvlab_host's functions of the same names; abi.h says what they do.
  void (*dots)(const kvlab_rows* rows, const float* queries, std::uint64_t query_stride, std::uint64_t count,
               float* out, std::uint64_t out_stride);
  void (*sums)(const kvlab_rows* rows, const float* weights, std::uint64_t weight_stride, std::uint64_t count,
               float* sums, std::uint64_t sum_stride);

  // x *= factor. Returns the largest; sets `finite` to false where a result is infinite or NaN (and leaves it else).
  float (*scale_and_max)(float* x, std::size_t count, float factor, bool& finite);
  // x = exp(x - maximum), 0 for minus infinity; x <= maximum < infinity. Returns the sum. Relative error below 3e-7.
  float (*exponentials)(float* x, std::size_t count, float maximum);

  // Copies to a 64-byte aligned place past the caches: for what is too large to be found there when it is read.
  void (*stream_copy)(std::byte* to, const std::byte* from, std::size_t count);
};

// Of an instruction set that the machine has, and of the chosen one.
const Kernels& kernels(Isa isa);
const Kernels& kernels();

namespace detail {
extern const Kernels scalar_kernels;
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
}  // namespace detail
}  // namespace kvlab
