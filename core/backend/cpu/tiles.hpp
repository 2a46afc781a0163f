// A walk over one role's segments, tile by tile.
#pragma once

#include <algorithm>
#include <span>

#include "core/backend/cpu/blocks.hpp"

namespace kvlab::cpu {

struct Tile {
  const Segment* segment;
  std::uint64_t first;  // slot
  std::uint64_t count;
  [[nodiscard]] std::uint64_t end() const { return first + count; }
  [[nodiscard]] std::uint64_t in_segment() const { return first - segment->first; }
};

class Tiles {
 public:
  // Starts with the tile that holds the slot `from`.
  Tiles(const Role& role, std::span<const Segment> segments, std::uint64_t from) : role_(role), segments_(segments) {
    const auto after = std::upper_bound(segments.begin(), segments.end(), from,
                                        [](std::uint64_t token, const Segment& s) { return token < s.first; });
    if (after == segments.begin()) return;
    const Segment& segment = *std::prev(after);
    segment_ = static_cast<std::size_t>(after - segments.begin()) - 1;
    const std::uint64_t tile = tile_tokens(role, segment);
    done_ = (from - segment.first) / tile * tile;
    if (done_ >= segment.tokens) next_segment();
  }

  bool next(Tile& tile) {
    if (!peek(tile)) return false;
    done_ += tile.count;
    if (done_ == tile.segment->tokens) next_segment();
    return true;
  }

  // The tile that next() will give.
  bool peek(Tile& tile) const {
    if (segment_ >= segments_.size()) return false;
    const Segment& segment = segments_[segment_];
    tile = {&segment, segment.first + done_, std::min(tile_tokens(role_, segment), segment.tokens - done_)};
    return true;
  }

  [[nodiscard]] std::uint64_t longest() const {
    std::uint64_t longest = 0;
    for (const auto& segment : segments_) {
      longest = std::max(longest, std::min(tile_tokens(role_, segment), segment.tokens));
    }
    return longest;
  }

 private:
  void next_segment() {
    ++segment_;
    done_ = 0;
  }

  const Role& role_;
  std::span<const Segment> segments_;
  std::size_t segment_ = 0;
  std::uint64_t done_ = 0;
};

}  // namespace kvlab::cpu
