#include "core/base/vector.hpp"

namespace kvlab {

KVLAB_MULTIVERSION float dot(const float* a, const float* b, std::size_t count) {
  constexpr std::size_t lanes = 16;
  float sums[lanes] = {};
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (std::size_t lane = 0; lane < lanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  float total = 0;
  for (const float sum : sums) total += sum;
  for (; i < count; ++i) total += a[i] * b[i];
  return total;
}

KVLAB_MULTIVERSION void add_scaled(float weight, const float* x, float* y, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) y[i] += weight * x[i];
}

KVLAB_MULTIVERSION void scale(float factor, float* y, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) y[i] *= factor;
}

}  // namespace kvlab
