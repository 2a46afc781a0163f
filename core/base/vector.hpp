// The few vector loops that attention and the metrics share, in f32, in plain C++ that the compiler vectorises. The
// order of additions is fixed by the source (16 partial sums), so a result does not depend on the instruction set.
#pragma once

#include <cstddef>

// Compiled once an instruction set and chosen at load. Sanitizers do not get along with the resolver that this needs.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(KVLAB_SANITIZED)
#define KVLAB_MULTIVERSION __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define KVLAB_MULTIVERSION
#endif

namespace kvlab {

// sum of a[i] * b[i]
float dot(const float* a, const float* b, std::size_t count);
// y[i] += weight * x[i]
void add_scaled(float weight, const float* x, float* y, std::size_t count);
// y[i] *= factor
void scale(float factor, float* y, std::size_t count);

}  // namespace kvlab
