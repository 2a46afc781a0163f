// Element types of a KV tensor: bf16, f16, f32.
#pragma once

#include <kvlab/abi.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

namespace kvlab {

enum class Dtype : kvlab_dtype { f32 = KVLAB_F32, f16 = KVLAB_F16, bf16 = KVLAB_BF16 };

constexpr std::size_t size_of(Dtype dtype) { return dtype == Dtype::f32 ? 4 : 2; }
constexpr const char* name_of(Dtype dtype) {
  return dtype == Dtype::f32 ? "f32" : dtype == Dtype::f16 ? "f16" : "bf16";
}

// `count` elements at `from` as f32.
void to_f32(Dtype dtype, const void* from, float* out, std::size_t count);
// f32 rounded to nearest even; too large becomes infinity.
void from_f32(Dtype dtype, const float* from, void* out, std::size_t count);

}  // namespace kvlab
