#include "core/base/finite.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/base/vector.hpp"

namespace kvlab {
namespace {

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

}  // namespace

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

}  // namespace kvlab
