#include "core/pipeline/layer_shape.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/base/error.hpp"
#include "core/registry/parameter.hpp"

namespace kvlab {
namespace {

void check_range(const char* what, std::uint64_t value, std::uint64_t most) {
  if (value >= 1 && value <= most) return;
  throw InputError(std::string(what) + " is " + std::to_string(value) + "; valid: 1 .. " + std::to_string(most));
}

}  // namespace

std::string of_layer(std::uint32_t layer) { return "layer " + std::to_string(layer) + ": "; }

void LayerShape::check() const {
  check_range("batch", batch, std::uint64_t{1} << 20);
  check_range("kv_heads", kv_heads, 65536);
  check_range("query_heads", query_heads, 65536);
  check_range("head_dim_keys", head_dim_keys, 512);
  check_range("head_dim_values", head_dim_values, 512);
  if (query_heads % kv_heads != 0) {
    throw InputError("query_heads " + std::to_string(query_heads) + " is not a multiple of kv_heads " +
                     std::to_string(kv_heads));
  }
  if (dtype != Dtype::f32 && dtype != Dtype::f16 && dtype != Dtype::bf16) {
    throw InputError("dtype is " + std::to_string(static_cast<kvlab_dtype>(dtype)) + "; valid: f32, f16, bf16");
  }
  if (!std::isfinite(attention_scale)) {
    throw InputError("attention_scale is " + text_of(attention_scale) + "; valid: a finite number");
  }
  check_rope();
}

void LayerShape::check_rope() const {
  if (rope_style != RopeStyle::none && rope_style != RopeStyle::half && rope_style != RopeStyle::interleaved) {
    throw InputError("rope_style is " + std::to_string(static_cast<std::uint32_t>(rope_style)) +
                     "; valid: none, half, interleaved");
  }
  if (inv_freq.size() > head_dim_keys / 2) {
    throw InputError("inv_freq has " + std::to_string(inv_freq.size()) + " entries; valid: at most half of the " +
                     std::to_string(head_dim_keys) + " channels of a key");
  }
  const auto bad = std::find_if(inv_freq.begin(), inv_freq.end(), [](double f) { return !std::isfinite(f); });
  if (bad != inv_freq.end()) throw InputError("inv_freq has " + text_of(*bad) + "; valid: finite numbers");
}

kvlab_layer LayerShape::describe(std::uint32_t role) const {
  kvlab_layer described{};
  described.struct_size = sizeof described;
  described.role = role;
  described.layer = layer;
  described.kv_heads = kv_heads;
  described.query_heads = query_heads;
  described.head_dim_keys = head_dim_keys;
  described.head_dim_values = head_dim_values;
  described.dtype = static_cast<kvlab_dtype>(dtype);
  described.attention_scale = attention_scale;
  described.window = window;
  described.rope_style = static_cast<std::uint32_t>(rope_style);
  described.rope_dim = static_cast<std::uint32_t>(2 * inv_freq.size());
  described.inv_freq = inv_freq.empty() ? nullptr : inv_freq.data();
  described.seed = seed;
  described.layer_count = 1;
  return described;
}

}  // namespace kvlab
