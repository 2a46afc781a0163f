// Codes of 2 to 8 bits, packed densely: code i is bits [i * width, (i + 1) * width) of the row, lowest bit first; the
// row is padded to a byte.
#pragma once

#include <cstdint>

namespace quantize {

constexpr std::uint64_t packed_bytes(std::uint64_t count, unsigned width) { return (count * width + 7) / 8; }

// Writes the low `width` bits of `code(i)`.
template <class Code>
void pack(std::uint8_t* out, std::uint64_t count, unsigned width, Code&& code) {
  const std::uint32_t mask = (1U << width) - 1U;
  std::uint32_t pending = 0;
  unsigned bits = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    pending |= (static_cast<std::uint32_t>(code(i)) & mask) << bits;
    bits += width;
    while (bits >= 8) {
      *out++ = static_cast<std::uint8_t>(pending);
      pending >>= 8;
      bits -= 8;
    }
  }
  if (bits > 0) *out = static_cast<std::uint8_t>(pending);
}

// Code i as it was given to pack: sign-extended where it was signed.
class Codes {
 public:
  Codes(const std::uint8_t* row, std::uint64_t bytes, unsigned width, bool is_signed)
      : row_(row), bytes_(bytes), width_(width), sign_(is_signed ? 1U << (width - 1) : 0U) {}

  [[nodiscard]] std::int32_t operator[](std::uint64_t i) const {
    const std::uint64_t bit = i * width_;
    const std::uint64_t byte = bit / 8;
    // A code lies in two bytes at the most; the row's last byte has no neighbour.
    const std::uint32_t low = row_[byte];
    const std::uint32_t high = byte + 1 < bytes_ ? row_[byte + 1] : 0U;
    const std::uint32_t code = ((low | (high << 8)) >> (bit % 8)) & ((1U << width_) - 1U);
    return static_cast<std::int32_t>(code ^ sign_) - static_cast<std::int32_t>(sign_);
  }

 private:
  const std::uint8_t* row_;
  std::uint64_t bytes_;
  unsigned width_;
  std::uint32_t sign_;
};

}  // namespace quantize
