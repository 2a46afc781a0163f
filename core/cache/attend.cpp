// Online softmax (Milakov and Gimelshein, arXiv 1805.02867; FlashAttention, arXiv 2205.14135) over tiles.
//
// Keys and values may be cut differently, so values lead: for each tile of values the keys' scores are computed up to
// its end, wherever the keys' own tiles end, and wait in a buffer:
//
//   keys    |-------------|-------------|            scores are known up to here
//   values  |-----|-----|                            and weighed up to here
//                       [ pending ------)
//
// For each query i: m_i is the largest logit so far, l_i the sum of exp(logit - m_i), o_i the weighted sum of values.
// A larger maximum rescales l_i and o_i. Values that a codec accumulates in its own form are kept beside the rows and
// are finished once.
#include "core/cache/attend.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "core/base/vector.hpp"

namespace kvlab {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// Walks a role's segments tile by tile.
class Tiles {
 public:
  Tiles(const Role& role, const std::vector<Segment>& segments) : role_(role), segments_(segments) {}

  struct Tile {
    const Segment* segment;
    std::uint64_t first;  // of the kept tokens
    std::uint64_t count;
    [[nodiscard]] std::uint64_t end() const { return first + count; }
    [[nodiscard]] std::uint64_t in_segment() const { return first - segment->first; }
  };

  bool next(Tile& tile) {
    if (segment_ == segments_.size()) return false;
    const Segment& segment = segments_[segment_];
    const std::uint64_t count = std::min(tile_tokens(role_, segment), segment.tokens - done_);
    tile = {&segment, segment.first + done_, count};
    done_ += count;
    if (done_ == segment.tokens) {
      ++segment_;
      done_ = 0;
    }
    return true;
  }

  [[nodiscard]] std::uint64_t longest() const {
    std::uint64_t longest = 0;
    for (const auto& segment : segments_)
      longest = std::max(longest, std::min(tile_tokens(role_, segment), segment.tokens));
    return longest;
  }

 private:
  const Role& role_;
  const std::vector<Segment>& segments_;
  std::size_t segment_ = 0;
  std::uint64_t done_ = 0;
};

class HeadAttention {
 public:
  HeadAttention(const LayerCache& cache, const Head& head, std::uint32_t kv_head, const QueryRows& queries,
                Workspace& workspace)
      : shape_(cache.shape()),
        keys_(cache.keys()),
        values_(cache.values()),
        head_(head),
        kv_head_(kv_head),
        queries_(queries),
        workspace_(workspace),
        key_tiles_(keys_, head.keys),
        value_tiles_(values_, head.values),
        capacity_(key_tiles_.longest() + value_tiles_.longest()),
        fused_keys_(keys_.codec && keys_.codec->attends_keys()),
        fused_values_(values_.codec && values_.codec->attends_values()),
        width_(fused_values_ ? values_.codec->width() : 0) {}

  void run(float* out) {
    set_up();
    Tiles::Tile tile{};
    while (value_tiles_.next(tile)) {
      while (scored_ < tile.end()) score_next_tile();
      weigh(tile);
      add(tile);
      weighed_ = tile.end();
    }
    finish(out);
  }

 private:
  void set_up();
  void score_next_tile();
  void check_scores(const Tiles::Tile& tile) const;
  void mask_window(const Tiles::Tile& tile);
  void weigh(const Tiles::Tile& tile);
  void add(const Tiles::Tile& tile);
  void finish(float* out);

  [[nodiscard]] float* pending(std::uint64_t query, std::uint64_t token) const {
    return scores_ + query * capacity_ + (token - base_);
  }
  float* scratch(const Role& role) const {
    return workspace_.codec_scratch.ensure<float>((role.codec->traits().attend_scratch + 3) / 4);
  }

  const LayerShape& shape_;
  const Role& keys_;
  const Role& values_;
  const Head& head_;
  std::uint32_t kv_head_;
  const QueryRows& queries_;
  Workspace& workspace_;
  Tiles key_tiles_;
  Tiles value_tiles_;
  std::uint64_t capacity_;  // tokens of the score buffer
  bool fused_keys_;
  bool fused_values_;
  std::uint64_t width_;
  std::byte* prepared_ = nullptr;
  float* scores_ = nullptr;       // [query, capacity_]: logits, then weights
  float* maxima_ = nullptr;       // m [query]
  float* sums_ = nullptr;         // l [query]
  float* rows_ = nullptr;         // o [query, head_dim_values] of decoded tiles
  float* accumulator_ = nullptr;  // o [query, width_] in the codec's form
  std::uint64_t base_ = 0;        // first token in the score buffer
  std::uint64_t scored_ = 0;
  std::uint64_t weighed_ = 0;
};

void HeadAttention::set_up() {
  const std::uint64_t count = queries_.count;
  const auto in_lines = [](std::uint64_t floats) { return (floats + 15) / 16 * 16; };  // pieces start 64-byte aligned
  scores_ = workspace_.floats.ensure<float>(count * capacity_);
  const std::uint64_t accumulators = in_lines(count * width_);
  const std::uint64_t total = accumulators + in_lines(count) * 2 + count * values_.channels;
  accumulator_ = workspace_.accumulators.ensure<float>(total);
  maxima_ = accumulator_ + accumulators;
  sums_ = maxima_ + in_lines(count);
  rows_ = sums_ + in_lines(count);
  std::fill_n(accumulator_, total, 0.0F);
  std::fill_n(maxima_, count, minus_infinity);
  if (fused_keys_) {
    prepared_ = workspace_.prepared.ensure<std::byte>(keys_.codec->prepared_bytes(count));
    keys_.codec->prepare(kv_head_, queries_.base, count, prepared_, scratch(keys_));
  }
}

void HeadAttention::score_next_tile() {
  Tiles::Tile tile{};
  key_tiles_.next(tile);
  if (tile.end() - base_ > capacity_) {  // what was weighed makes room
    for (std::uint64_t q = 0; q < queries_.count; ++q) {
      std::memmove(scores_ + q * capacity_, pending(q, weighed_), (scored_ - weighed_) * sizeof(float));
    }
    base_ = weighed_;
  }
  if (tile.segment->encoded && fused_keys_) {
    const kvlab_block block = block_of(head_, kv_head_, *tile.segment, workspace_.positions);
    keys_.codec->scores(prepared_, queries_.count, block, tile.in_segment(), tile.count, pending(0, tile.first),
                        capacity_, scratch(keys_));
  } else {
    float* rows = workspace_.rows.ensure<float>(tile.count * keys_.channels);
    LayerCache::decode(keys_, head_, kv_head_, *tile.segment, tile.first, tile.count, rows, workspace_);
    for (std::uint64_t q = 0; q < queries_.count; ++q) {
      const float* query = queries_.base + q * keys_.channels;
      float* scores = pending(q, tile.first);
      for (std::uint64_t t = 0; t < tile.count; ++t) scores[t] = dot(query, rows + t * keys_.channels, keys_.channels);
    }
  }
  check_scores(tile);
  if (shape_.window > 0) mask_window(tile);
  scored_ = tile.end();
}

// Minus infinity is what the host masks with; a method's own would pass for it.
void HeadAttention::check_scores(const Tiles::Tile& tile) const {
  for (std::uint64_t q = 0; q < queries_.count; ++q) {
    const float* scores = pending(q, tile.first);
    for (std::uint64_t t = 0; t < tile.count; ++t) {
      if (!std::isfinite(scores[t])) {
        throw MethodError(KVLAB_INTERNAL, "an attention score is not finite in layer " + std::to_string(shape_.layer) +
                                              ", KV head " + std::to_string(kv_head_));
      }
    }
  }
}

// A query at position p of a layer with window W sees positions > p - W.
void HeadAttention::mask_window(const Tiles::Tile& tile) {
  const auto range = head_.positions.range(tile.first, tile.count, workspace_.positions);
  for (std::uint64_t q = 0; q < queries_.count; ++q) {
    const std::uint64_t position = queries_.positions[q % queries_.positions.size()];
    float* scores = pending(q, tile.first);
    for (std::uint64_t t = 0; t < tile.count; ++t) {
      const std::uint64_t token = range.list != nullptr ? range.list[t] : range.first + t;
      if (token + shape_.window <= position) scores[t] = minus_infinity;
    }
  }
}

// Turns the tile's scores into weights exp(logit - m), after m, l and o were brought up to date.
void HeadAttention::weigh(const Tiles::Tile& tile) {
  const auto attention_scale = static_cast<float>(shape_.attention_scale);
  for (std::uint64_t q = 0; q < queries_.count; ++q) {
    float* scores = pending(q, tile.first);
    float maximum = maxima_[q];
    for (std::uint64_t t = 0; t < tile.count; ++t) {
      scores[t] *= attention_scale;
      maximum = std::max(maximum, scores[t]);
    }
    if (maximum == minus_infinity) {  // all masked so far
      std::fill_n(scores, tile.count, 0.0F);
      continue;
    }
    if (maximum > maxima_[q]) {
      const float shrink = std::exp(maxima_[q] - maximum);
      sums_[q] *= shrink;
      scale(shrink, rows_ + q * values_.channels, values_.channels);
      scale(shrink, accumulator_ + q * width_, width_);
      maxima_[q] = maximum;
    }
    for (std::uint64_t t = 0; t < tile.count; ++t) {
      scores[t] = std::exp(scores[t] - maximum);
      sums_[q] += scores[t];
    }
  }
}

void HeadAttention::add(const Tiles::Tile& tile) {
  if (tile.segment->encoded && fused_values_) {
    const kvlab_block block = block_of(head_, kv_head_, *tile.segment, workspace_.positions);
    values_.codec->accumulate(pending(0, tile.first), queries_.count, capacity_, block, tile.in_segment(), tile.count,
                              accumulator_, scratch(values_));
    return;
  }
  float* rows = workspace_.more_rows.ensure<float>(tile.count * values_.channels);
  LayerCache::decode(values_, head_, kv_head_, *tile.segment, tile.first, tile.count, rows, workspace_);
  for (std::uint64_t q = 0; q < queries_.count; ++q) {
    const float* weights = pending(q, tile.first);
    for (std::uint64_t t = 0; t < tile.count; ++t) {
      add_scaled(weights[t], rows + t * values_.channels, rows_ + q * values_.channels, values_.channels);
    }
  }
}

void HeadAttention::finish(float* out) {
  const std::uint64_t channels = values_.channels;
  if (fused_values_) {
    values_.codec->finish(kv_head_, accumulator_, queries_.count, out, scratch(values_));
  } else {
    std::fill_n(out, queries_.count * channels, 0.0F);
  }
  for (std::uint64_t q = 0; q < queries_.count; ++q) {
    add_scaled(1, rows_ + q * channels, out + q * channels, channels);
    scale(sums_[q] > 0 ? 1 / sums_[q] : 0, out + q * channels, channels);
  }
}

}  // namespace

void attend_head(const LayerCache& cache, const Head& head, std::uint32_t kv_head, const QueryRows& queries, float* out,
                 Workspace& workspace) {
  if (queries.count == 0) return;
  HeadAttention(cache, head, kv_head, queries, workspace).run(out);
}

}  // namespace kvlab
