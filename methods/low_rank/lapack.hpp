// The routines of BLAS and LAPACK that low_rank calls, with their Fortran names. Matrices there are column-major.
#pragma once

#include <cstdint>
#include <span>

namespace low_rank {

// Eigenvectors (columns, overwriting g) and eigenvalues (ascending) of the symmetric n x n matrix g (ssyevd).
// Throws std::runtime_error when it does not converge. work and iwork: sizes below.
void eigen(int n, float* g, float* eigenvalues, std::span<float> work, std::span<int> iwork);
constexpr std::uint64_t eigen_work(std::uint64_t n) { return 1 + 6 * n + 2 * n * n; }
constexpr std::uint64_t eigen_iwork(std::uint64_t n) { return 3 + 5 * n; }

// The first min(n, c) right singular vectors of x [n, c] row-major, rows of v [min(n, c), c], largest singular value
// first (sgesdd). Overwrites x. Throws as eigen does. work: svd_work(n, c) floats, which hold its other results too.
void right_singular_vectors(int n, int c, float* x, float* v, std::span<float> work, std::span<int> iwork);
std::uint64_t svd_work(std::uint64_t n, std::uint64_t c);
constexpr std::uint64_t svd_iwork(std::uint64_t n, std::uint64_t c) { return 8 * (n < c ? n : c); }

// g = x^T x for x [n, c] row-major; both triangles.
void gram(int n, int c, const float* x, float* g);

// a [n, r] = x [n, c] * v [r, c]^T, all row-major.
void project(int n, int c, int r, const float* x, const float* v, float* a);

// OpenBLAS keeps to the calling thread; harmless with a build that has no threads.
void use_one_thread();

}  // namespace low_rank
