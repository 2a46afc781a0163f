#include "core/cache/input.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/base/error.hpp"
#include "core/base/vector.hpp"

namespace kvlab {
namespace {

const char* name_of_role(std::uint32_t role) { return role == KVLAB_ROLE_KEYS ? "keys" : "values"; }

std::uint32_t channels_of(const LayerShape& shape, std::uint32_t role) {
  return role == KVLAB_ROLE_KEYS ? shape.head_dim_keys : shape.head_dim_values;
}

// The largest magnitude as an integer: infinity is above all finite numbers, and NaN above infinity.
template <typename Bits>
[[gnu::always_inline]] inline Bits largest(const void* elements, std::size_t count) {
  const auto* bits = static_cast<const Bits*>(elements);
  constexpr Bits magnitude = static_cast<Bits>(std::numeric_limits<Bits>::max() >> 1U);
  const auto of = [](Bits x) { return static_cast<Bits>(x & magnitude); };
  const std::size_t quarter = count / 4;  // four at once: a maximum waits for the one before it
  Bits a = 0;
  Bits b = 0;
  Bits c = 0;
  Bits d = 0;
  for (std::size_t i = 0; i < quarter; ++i) {
    a = std::max(a, of(bits[i]));
    b = std::max(b, of(bits[quarter + i]));
    c = std::max(c, of(bits[2 * quarter + i]));
    d = std::max(d, of(bits[3 * quarter + i]));
  }
  for (std::size_t i = 4 * quarter; i < count; ++i) a = std::max(a, of(bits[i]));
  return std::max(std::max(a, b), std::max(c, d));
}

KVLAB_MULTIVERSION std::uint16_t largest_16(const void* elements, std::size_t count) {
  return largest<std::uint16_t>(elements, count);
}
KVLAB_MULTIVERSION std::uint32_t largest_32(const void* elements, std::size_t count) {
  return largest<std::uint32_t>(elements, count);
}

// [sequence, head, token, channel] of the first element that is not finite.
[[noreturn]] void refuse_row(const LayerShape& shape, std::uint32_t role, const std::byte* row, std::uint64_t sequence,
                             std::uint32_t kv_head, std::uint64_t token) {
  std::vector<float> values(channels_of(shape, role));
  to_f32(shape.dtype, row, values.data(), values.size());
  const auto bad = std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  throw InputError(of_layer(shape.layer) + name_of_role(role) + " of sequence " + std::to_string(sequence) +
                   ", KV head " + std::to_string(kv_head) + ", token " + std::to_string(token) + ", channel " +
                   std::to_string(bad - values.begin()) + " of the tensor: " + (std::isnan(*bad) ? "NaN" : "infinity") +
                   "; valid: finite numbers");
}

template <class TokenOf>
void check_rows_of(const LayerShape& shape, std::uint32_t role, const TokenRows& rows, std::uint64_t sequence,
                   std::uint32_t kv_head, std::uint64_t count, const TokenOf& token_of) {
  const std::uint64_t channels = channels_of(shape, role);
  const bool neighbours = rows.row_step == static_cast<std::int64_t>(channels * size_of(shape.dtype));
  if (neighbours && all_finite(shape.dtype, rows.base, count * channels)) return;
  for (std::uint64_t t = 0; t < count; ++t) {
    const std::byte* row = rows.from(t).base;
    if (!all_finite(shape.dtype, row, channels)) refuse_row(shape, role, row, sequence, kv_head, token_of(t));
  }
}

}  // namespace

std::string of_layer(std::uint32_t layer) { return "layer " + std::to_string(layer) + ": "; }

bool all_finite(Dtype dtype, const void* elements, std::size_t count) {
  switch (dtype) {
    case Dtype::f32:
      return largest_32(elements, count) < 0x7F800000U;
    case Dtype::f16:
      return largest_16(elements, count) < 0x7C00U;
    case Dtype::bf16:
      break;
  }
  return largest_16(elements, count) < 0x7F80U;
}

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

void check_rows(const LayerShape& shape, std::uint32_t role, const TokenRows& rows, std::uint64_t sequence,
                std::uint32_t kv_head, std::span<const std::uint32_t> tokens) {
  check_rows_of(shape, role, rows, sequence, kv_head, tokens.size(), [&](std::uint64_t t) { return tokens[t]; });
}

void check_rows(const LayerShape& shape, std::uint32_t role, const TokenRows& rows, std::uint64_t sequence,
                std::uint32_t kv_head, std::uint64_t count) {
  check_rows_of(shape, role, rows, sequence, kv_head, count, [](std::uint64_t t) { return t; });
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
