#include "core/base/dtype.hpp"

#include <kvlab/half.hpp>

#include <cstdint>
#include <cstring>

#include "core/base/vector.hpp"

namespace kvlab {

KVLAB_MULTIVERSION void to_f32(Dtype dtype, const void* from, float* out, std::size_t count) {
  if (dtype == Dtype::f32) {
    if (count > 0) std::memcpy(out, from, count * sizeof(float));
    return;
  }
  const auto* bits = static_cast<const std::uint16_t*>(from);
  if (dtype == Dtype::bf16) {
    for (std::size_t i = 0; i < count; ++i) out[i] = bf16_to_f32(bits[i]);
  } else {
    for (std::size_t i = 0; i < count; ++i) out[i] = f16_to_f32(bits[i]);
  }
}

KVLAB_MULTIVERSION void from_f32(Dtype dtype, const float* from, void* out, std::size_t count) {
  if (dtype == Dtype::f32) {
    if (count > 0) std::memcpy(out, from, count * sizeof(float));
    return;
  }
  auto* bits = static_cast<std::uint16_t*>(out);
  if (dtype == Dtype::bf16) {
    for (std::size_t i = 0; i < count; ++i) bits[i] = f32_to_bf16(from[i]);
  } else {
    for (std::size_t i = 0; i < count; ++i) bits[i] = f32_to_f16(from[i]);
  }
}

}  // namespace kvlab
