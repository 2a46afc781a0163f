// The fast kernels, compiled for AVX512.
#if defined(__x86_64__)
#include "core/kernels/kernels.hpp"

#include <kvlab/simd.hpp>

#include "core/kernels/rows.inl"
#include "core/kernels/softmax.inl"

const kvlab::Kernels kvlab::detail::avx512_kernels{&dots, &sums, &scale_and_max, &exponentials, &stream_copy};
#endif
