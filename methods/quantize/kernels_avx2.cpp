// The kernels, compiled for avx2.
#if defined(__x86_64__)
#include "kernels.inl"

const quantize::Kernels quantize::avx2_kernels = all_kernels;
#endif
