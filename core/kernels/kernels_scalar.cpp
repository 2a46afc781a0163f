// The reference: what the fast kernels compute, written out.
#include <kvlab/half.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/kernels/kernels.hpp"

namespace kvlab {
namespace {

float element(const kvlab_rows& rows, std::uint64_t token, std::uint64_t channel) {
  const std::uint64_t index = token * rows.stride + channel;
  if (rows.dtype == KVLAB_F32) return static_cast<const float*>(rows.base)[index];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(rows.base)[index];
  return rows.dtype == KVLAB_BF16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

void dots(const kvlab_rows* rows, const float* queries, std::uint64_t query_stride, std::uint64_t count, float* out,
          std::uint64_t out_stride) {
  for (std::uint64_t q = 0; q < count; ++q) {
    for (std::uint64_t t = 0; t < rows->tokens; ++t) {
      float sum = 0;
      for (std::uint64_t c = 0; c < rows->channels; ++c) sum += queries[q * query_stride + c] * element(*rows, t, c);
      out[q * out_stride + t] = sum;
    }
  }
}

void sums(const kvlab_rows* rows, const float* weights, std::uint64_t weight_stride, std::uint64_t count, float* sums,
          std::uint64_t sum_stride) {
  for (std::uint64_t t = 0; t < rows->tokens; ++t) {
    for (std::uint64_t c = 0; c < rows->channels; ++c) {
      const float x = element(*rows, t, c);
      for (std::uint64_t q = 0; q < count; ++q) sums[q * sum_stride + c] += weights[q * weight_stride + t] * x;
    }
  }
}

float scale_and_max(float* x, std::size_t count, float factor, bool& finite) {
  float largest = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < count; ++i) {
    x[i] *= factor;
    if (!std::isfinite(x[i])) finite = false;
    largest = std::max(largest, x[i]);
  }
  return largest;
}

float exponentials(float* x, std::size_t count, float maximum) {
  float sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    x[i] = std::exp(x[i] - maximum);
    sum += x[i];
  }
  return sum;
}

void stream_copy(std::byte* to, const std::byte* from, std::size_t count) { std::memcpy(to, from, count); }

}  // namespace

const Kernels detail::scalar_kernels{&dots, &sums, &scale_and_max, &exponentials, &stream_copy};

}  // namespace kvlab
