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

// Sentences about a tensor of a layer.
struct About {
  const LayerShape& shape;
  std::string what;  // "keys"

  [[noreturn]] void refuse(const std::string& sentence) const {
    throw InputError(of_layer(shape.layer) + what + sentence);
  }
  void expect(const char* name, std::uint64_t given, std::uint64_t valid) const {
    if (given == valid) return;
    refuse(std::string(": ") + name + " is " + std::to_string(given) + "; valid: " + std::to_string(valid));
  }
};

void check_strides(const About& about, const KvTensor& tensor) {
  struct Axis {
    const char* name;
    std::uint64_t extent;
    std::int64_t stride;
  };
  std::array axes{Axis{"sequence_stride", tensor.sequences, tensor.sequence_stride},
                  Axis{"head_stride", tensor.kv_heads, tensor.head_stride},
                  Axis{"token_stride", tensor.tokens, tensor.token_stride}};
  std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
  constexpr auto most = std::numeric_limits<std::int64_t>::max() / 8;  // elements that an address space may hold
  auto reach = static_cast<std::int64_t>(tensor.channels);             // of what lies side by side so far
  for (const Axis& axis : axes) {
    if (axis.extent == 1) continue;
    const auto given = [&] {
      return std::string(": ") + axis.name + " is " + std::to_string(axis.stride) + "; valid: ";
    };
    const auto steps = static_cast<std::int64_t>(axis.extent - 1);
    if (axis.stride < reach) {
      about.refuse(given() + "from " + std::to_string(reach) + " elements, with which no rows overlap");
    }
    if (axis.stride > (most - reach) / steps) about.refuse(given() + "what fits the address space");
    reach += steps * axis.stride;
  }
}

void check_tensor(const LayerShape& shape, std::uint32_t role, const KvTensor& tensor, std::uint64_t sequences) {
  const About about{shape, role == KVLAB_ROLE_KEYS ? "keys" : "values"};
  about.expect("sequences", tensor.sequences, sequences);
  about.expect("kv_heads", tensor.kv_heads, shape.kv_heads);
  about.expect("channels", tensor.channels, shape.head_dim(role));
  if (tensor.dtype != shape.dtype) {
    about.refuse(std::string(": dtype is ") + name_of(tensor.dtype) + "; valid: " + name_of(shape.dtype));
  }
  if (tensor.tokens > most_tokens) {
    about.refuse(": tokens is " + std::to_string(tensor.tokens) + "; valid: 0 .. 2^31");
  }
  if (tensor.tokens == 0) return;
  if (tensor.base == nullptr) {
    about.refuse(" have no base (null), and there are " + std::to_string(tensor.tokens) + " tokens");
  }
  const std::size_t element = size_of(shape.dtype);
  if (reinterpret_cast<std::uintptr_t>(tensor.base) % element != 0) {
    about.refuse(" are at an address that is not a multiple of the " + std::to_string(element) + " bytes of " +
                 name_of(shape.dtype));
  }
  check_strides(about, tensor);
}

}  // namespace

void check_tensors(const LayerShape& shape, const KvTensor& keys, const KvTensor& values, std::uint64_t sequences) {
  check_tensor(shape, KVLAB_ROLE_KEYS, keys, sequences);
  check_tensor(shape, KVLAB_ROLE_VALUES, values, sequences);
  About{shape, "values"}.expect("tokens", values.tokens, keys.tokens);
}

void check_queries(const LayerShape& shape, const char* what, const QueryTensor& queries, std::uint64_t sequences) {
  const About about{shape, what};
  const std::uint64_t count = queries.count;
  const auto& positions = queries.positions;
  if (count == 0) about.refuse(": there are none; valid: from 1 per query head");
  about.expect("sequences", queries.sequences, sequences);
  about.expect("query_heads", queries.query_heads, shape.query_heads);
  about.expect("channels", queries.channels, shape.head_dim_keys);
  if (positions.size() != count && (positions.size() % sequences != 0 || positions.size() / sequences != count)) {
    about.refuse(": " + std::to_string(positions.size()) + " positions of " + std::to_string(count) + " queries of " +
                 std::to_string(sequences) + " sequences; valid: one per query, or per query of each sequence");
  }
  if (queries.base == nullptr)
    about.refuse(" have no base (null), and there are " + std::to_string(count) + " per head");
  for (std::uint64_t i = 0; i < positions.size(); ++i) {
    if (positions[i] >= most_tokens) {
      about.refuse(": position " + std::to_string(positions[i]) + "; valid: below 2^31");
    }
    if (i % count > 0 && positions[i] < positions[i - 1]) {
      about.refuse(": position " + std::to_string(positions[i]) + " comes after " + std::to_string(positions[i - 1]) +
                   "; valid: ascending in each sequence");
    }
  }
  const std::uint64_t elements = sequences * queries.query_heads * count * queries.channels;
  if (all_finite(Dtype::f32, queries.base, elements)) return;
  const auto* bad = std::find_if(queries.base, queries.base + elements, [](float x) { return !std::isfinite(x); });
  const auto row = static_cast<std::uint64_t>(bad - queries.base) / queries.channels;
  about.refuse(" of sequence " + std::to_string(row / count / queries.query_heads) + " of the call, query head " +
               std::to_string(row / count % queries.query_heads) + ", query " + std::to_string(row % count) + ": " +
               (std::isnan(*bad) ? "NaN" : "infinity") + "; valid: finite numbers");
}

}  // namespace kvlab
