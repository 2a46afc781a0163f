// The kernels, compiled for avx512vnni.
#if defined(__x86_64__)
#include "kernels.hpp"

#include <kvlab/simd.hpp>

#include "kernels.inl"

#include "encode.inl"

const quantize::Kernels quantize::avx512vnni_kernels{simd::bytes,
                                                     &round_query,
                                                     &place,
                                                     &round_weights,
                                                     &round_group_weights,
                                                     &group_dot,
                                                     &dots,
                                                     &group_dots,
                                                     &sums,
                                                     &group_sums,
                                                     &pair_rows,
                                                     2 * simd::floats,
                                                     &encode_tokens,
                                                     &encode_channels,
                                                     &decode_row,
                                                     &decode_channels,
                                                     &unpack,
                                                     &load_scales,
                                                     &dot};
#endif
