// The kernels, compiled for avx512vnni.
#if defined(__x86_64__)
#include "kernels.inl"

const quantize::Kernels quantize::avx512vnni_kernels = all_kernels;
#endif
