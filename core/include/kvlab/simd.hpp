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
