#include "lapack.hpp"

#include <stdexcept>
#include <string>

// NOLINTBEGIN(readability-identifier-naming): Fortran's names
extern "C" {
void ssyevd_(const char* jobz, const char* uplo, const int* n, float* a, const int* lda, float* w, float* work,
             const int* lwork, int* iwork, const int* liwork, int* info);
void ssyrk_(const char* uplo, const char* trans, const int* n, const int* k, const float* alpha, const float* a,
            const int* lda, const float* beta, float* c, const int* ldc);
void sgemm_(const char* transa, const char* transb, const int* m, const int* n, const int* k, const float* alpha,
            const float* a, const int* lda, const float* b, const int* ldb, const float* beta, float* c,
            const int* ldc);
void sgesdd_(const char* jobz, const int* m, const int* n, float* a, const int* lda, float* s, float* u, const int* ldu,
             float* vt, const int* ldvt, float* work, const int* lwork, int* iwork, int* info);
void openblas_set_num_threads(int threads) __attribute__((weak));
}
// NOLINTEND(readability-identifier-naming)

namespace low_rank {

void eigen(int n, float* g, float* eigenvalues, std::span<float> work, std::span<int> iwork) {
  const int lwork = static_cast<int>(work.size());
  const int liwork = static_cast<int>(iwork.size());
  int info = 0;
  ssyevd_("V", "U", &n, g, &n, eigenvalues, work.data(), &lwork, iwork.data(), &liwork, &info);
  if (info != 0) throw std::runtime_error("ssyevd does not converge (info " + std::to_string(info) + ")");
}

namespace {

// LAPACK's own least work for jobz S, and room to go by blocks of 64 columns.
std::uint64_t sgesdd_work(std::uint64_t n, std::uint64_t c) {
  const std::uint64_t least = n < c ? n : c;
  const std::uint64_t most = n < c ? c : n;
  return 4 * least * least + 7 * least + 64 * (most + least) + least * most;
}

}  // namespace

// What sgesdd gives besides: singular values [least], left vectors [least, n].
std::uint64_t svd_work(std::uint64_t n, std::uint64_t c) {
  const std::uint64_t least = n < c ? n : c;
  return least + least * n + sgesdd_work(n, c);
}

// Column-major [c, n] is x^T: its left singular vectors are x's right ones.
void right_singular_vectors(int n, int c, float* x, float* v, std::span<float> work, std::span<int> iwork) {
  const int least = n < c ? n : c;
  float* values = work.data();
  float* left = values + least;
  float* rest = left + static_cast<std::ptrdiff_t>(least) * n;
  const int lwork = static_cast<int>(sgesdd_work(static_cast<std::uint64_t>(n), static_cast<std::uint64_t>(c)));
  int info = 0;
  sgesdd_("S", &c, &n, x, &c, values, v, &c, left, &least, rest, &lwork, iwork.data(), &info);
  if (info != 0) throw std::runtime_error("sgesdd does not converge (info " + std::to_string(info) + ")");
}

// x row-major [n, c] is x^T column-major [c, n], so the product here is x^T * (x^T)^T.
void gram(int n, int c, const float* x, float* g) {
  const float one = 1;
  const float zero = 0;
  ssyrk_("U", "N", &c, &n, &one, x, &c, &zero, g, &c);
  for (int i = 0; i < c; ++i) {
    for (int j = 0; j < i; ++j) g[j * c + i] = g[i * c + j];
  }
}

// Column-major: a^T [r, n] = v^T' [c, r]' * x^T [c, n].
void project(int n, int c, int r, const float* x, const float* v, float* a) {
  const float one = 1;
  const float zero = 0;
  sgemm_("T", "N", &r, &n, &c, &one, v, &c, x, &c, &zero, a, &r);
}

void use_one_thread() {
  if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
}

}  // namespace low_rank
