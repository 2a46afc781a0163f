// Reading what a cache holds: rows of one role of a head, as f32, each with its position.
#pragma once

#include <algorithm>
#include <vector>

#include "core/cache/layer_cache.hpp"

namespace kvlab {

// One per thread: it has buffers of its own.
class RowReader {
 public:
  // at_once: tokens decoded in one call of the codec, at least; rounded up to what it decodes at a time.
  explicit RowReader(const LayerCache& cache, std::uint64_t at_once = 64) : cache_(cache), at_once_(at_once) {}

  // Calls body(position, row) for each token of this head that is kept, in the order of its slots. `role`: the cache's
  // of that name (layer().keys, layer().values), or another made alike, whose codecs decode then.
  template <class Body>
  void each(std::uint64_t sequence, std::uint32_t kv_head, const Role& role, Body&& body) {
    const Head& head = cache_.head(sequence, kv_head);
    head.positions.write_out(positions_);
    for (const Segment& segment : head.of(role.which).segments) {
      const std::uint64_t granule = segment.encoded ? role.codec(segment).traits().decode_granule : 1;
      const std::uint64_t tile = (at_once_ + granule - 1) / granule * granule;
      for (std::uint64_t first = 0; first < segment.tokens; first += tile) {
        const std::uint64_t count = std::min(tile, segment.tokens - first);
        rows_.resize(count * role.channels);
        cache_.backend().read(role, kv_head, segment, head.positions.view(), first, count, rows_.data());
        for (std::uint64_t t = 0; t < count; ++t) {
          const std::uint32_t position = positions_[segment.first + first + t];
          if (position < evicted) body(position, rows_.data() + t * role.channels);
        }
      }
    }
  }

 private:
  const LayerCache& cache_;
  std::uint64_t at_once_;
  std::vector<std::uint32_t> positions_;
  std::vector<float> rows_;
};

}  // namespace kvlab
