#include "core/cache/input.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/backend/positions_view.hpp"
#include "core/base/error.hpp"
#include "core/base/finite.hpp"

namespace kvlab {
namespace {

const char* name_of_role(std::uint32_t role) { return role == KVLAB_ROLE_KEYS ? "keys" : "values"; }

std::uint32_t channels_of(const LayerShape& shape, std::uint32_t role) {
  return role == KVLAB_ROLE_KEYS ? shape.head_dim_keys : shape.head_dim_values;
}

}  // namespace

void check_tensor(const LayerShape& shape, std::uint32_t role, const KvTensor& tensor, std::uint64_t sequences,
                  std::uint64_t tokens) {
  if (tokens == 0 || sequences == 0) return;
  const auto refuse = [&](const std::string& sentence) {
    throw InputError(of_layer(shape.layer) + name_of_role(role) + sentence);
  };
  if (tensor.base == nullptr) refuse(" have no base (null), and there are " + std::to_string(tokens) + " tokens");
  const std::size_t element = size_of(shape.dtype);
  if (reinterpret_cast<std::uintptr_t>(tensor.base) % element != 0) {
    refuse(" are at an address that is not a multiple of the " + std::to_string(element) + " bytes of " +
           name_of(shape.dtype));
  }
  struct Axis {
    const char* name;
    std::uint64_t extent;
    std::int64_t stride;
  };
  std::array axes{Axis{"sequence_stride", sequences, tensor.sequence_stride},
                  Axis{"head_stride", shape.kv_heads, tensor.head_stride},
                  Axis{"token_stride", tokens, tensor.token_stride}};
  std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
  constexpr auto most = std::numeric_limits<std::int64_t>::max() / 8;  // elements that an address space may hold
  auto reach = static_cast<std::int64_t>(channels_of(shape, role));    // of what lies side by side so far
  for (const Axis& axis : axes) {
    if (axis.extent == 1) continue;
    const auto given = [&] {
      return std::string(": ") + axis.name + " is " + std::to_string(axis.stride) + "; valid: ";
    };
    const auto steps = static_cast<std::int64_t>(axis.extent - 1);
    if (axis.stride < reach) {
      refuse(given() + "from " + std::to_string(reach) + " elements, with which no rows overlap");
    }
    if (axis.stride > (most - reach) / steps) refuse(given() + "what fits the address space");
    reach += steps * axis.stride;
  }
}

void check_queries(const LayerShape& shape, const char* what, const float* queries,
                   std::span<const std::uint32_t> positions, std::uint64_t sequences) {
  const auto refuse = [&](const std::string& sentence) { throw InputError(of_layer(shape.layer) + what + sentence); };
  if (sequences == 0 || positions.size() % sequences != 0) {
    refuse(": " + std::to_string(positions.size()) + " positions are not as many for each of " +
           std::to_string(sequences) + " sequences");
  }
  const std::uint64_t count = positions.size() / sequences;
  if (count == 0) refuse(": there are none; valid: from 1 position per sequence");
  if (queries == nullptr) refuse(" have no base (null), and there are " + std::to_string(count) + " positions");
  for (std::uint64_t i = 0; i < positions.size(); ++i) {
    if (positions[i] >= most_tokens) {
      refuse(": position " + std::to_string(positions[i]) + "; valid: below 2^31");
    }
    if (i % count > 0 && positions[i] < positions[i - 1]) {
      refuse(": position " + std::to_string(positions[i]) + " comes after " + std::to_string(positions[i - 1]) +
             "; valid: ascending in each sequence");
    }
  }
  const std::uint64_t elements = positions.size() * shape.query_heads * shape.head_dim_keys;
  if (all_finite(Dtype::f32, queries, elements)) return;
  const auto* bad = std::find_if(queries, queries + elements, [](float x) { return !std::isfinite(x); });
  const auto row = static_cast<std::uint64_t>(bad - queries) / shape.head_dim_keys;
  refuse(" of sequence " + std::to_string(row / count / shape.query_heads) + " of the call, query head " +
         std::to_string(row / count % shape.query_heads) + ", query " + std::to_string(row % count) + ": " +
         (std::isnan(*bad) ? "NaN" : "infinity") + "; valid: finite numbers");
}

}  // namespace kvlab
