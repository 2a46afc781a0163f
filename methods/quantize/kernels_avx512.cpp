// The kernels, compiled for avx512.
#if defined(__x86_64__)
#include "kernels.inl"

const quantize::Kernels quantize::avx512_kernels = all_kernels;
#endif
