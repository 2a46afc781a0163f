// Blocks to f32 rows with the kernels of kernels.hpp.
#include <algorithm>
#include <array>

#include "attend.hpp"

namespace quantize {

using kvlab::Scratch;

bool Attend::decode(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
                    Scratch scratch) const {
  const std::uint64_t channels = format_.channels;
  const bool grouped = !format_.per_channel && format_.groups() > 1 && format_.group % 16 != 0;
  if (fast_ == nullptr || !aligned(first) || grouped || (format_.per_channel && channels % 16 != 0)) return false;
  for (std::uint64_t done = 0; done < count; done += tile) {
    const Tile part = tile_of(block, first + done, std::min(tile, count - done), done, count, scratch, true);
    if (format_.per_channel) {
      decode_channels(part, {rows[done], rows.stride});
      continue;
    }
    for (std::uint64_t t = 0; t < part.count; ++t) {
      const std::uint64_t scale = t * format_.groups();
      fast_->decode_row(part.rows.base + t * part.rows.row_bytes, format_.bits, format_.symmetric, channels,
                        format_.group, part.scales + scale, part.zeros == nullptr ? nullptr : part.zeros + scale,
                        rows[done + t]);
    }
  }
  return true;
}

void Attend::decode_channels(const Tile& part, kvlab::Rows rows) const {
  std::array<std::uint8_t, 256> square{};  // 16 channels of 16 tokens
  for (std::uint64_t c = 0; c < format_.channels; c += 16) {
    for (std::uint64_t t = 0; t < part.count; t += 16) {
      const std::uint64_t now = std::min<std::uint64_t>(16, part.count - t);
      for (std::uint64_t i = 0; i < 16; ++i) {
        const std::uint8_t* row = part.rows.base + (c + i) * part.rows.row_bytes + t * format_.bits / 8;
        if (format_.bits == 8) {
          std::copy_n(row, now, square.data() + 16 * i);
        } else {
          fast_->unpack(row, format_.bits, format_.symmetric, now, square.data() + 16 * i);
        }
      }
      fast_->decode_channels(square.data(), format_.symmetric, now, part.scales + c,
                             part.zeros == nullptr ? nullptr : part.zeros + c, rows[t] + c, rows.stride);
    }
  }
}

}  // namespace quantize
