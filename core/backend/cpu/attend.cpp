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
// are finished once. A part, which a thread makes of a range of tokens:
//
//   m [count] | l [count] | rows o [count][head_dim_values] | accumulators [count][width]
#include "core/backend/cpu/attend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "core/backend/cpu/tiles.hpp"
#include "core/base/vector.hpp"
#include "core/kernels/kernels.hpp"

namespace kvlab::cpu {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// Whole cache lines.
std::uint64_t in_lines(std::uint64_t floats) { return (floats + 15) / 16 * 16; }

// Floats that the codecs of values accumulate a query in, a rung after another; 0 where one has not the ability.
struct Widths {
  explicit Widths(const Role& values) : rungs(values.codecs.size()) {
    for (std::size_t rung = 0; rung < rungs; ++rung) {
      const CodecInstance& codec = values.codecs[rung];
      before[rung + 1] = before[rung] + (codec.attends_values() ? codec.width() : 0);
    }
  }
  [[nodiscard]] std::uint64_t total() const { return before[rungs]; }
  [[nodiscard]] std::uint64_t of(std::size_t rung) const { return before[rung + 1] - before[rung]; }

  std::size_t rungs;
  std::array<std::uint64_t, most_rungs + 1> before{};
};

struct Part {
  Part(const Role& values, std::uint64_t count, float* base)
      : widths(values),
        queries(count),
        maxima(base),
        sums(maxima + in_lines(count)),
        rows(sums + in_lines(count)),
        accumulators(rows + in_lines(count * values.channels)) {}

  // Of a rung, for a query.
  [[nodiscard]] float* accumulator(std::size_t rung, std::uint64_t query) const {
    return accumulators + queries * widths.before[rung] + query * widths.of(rung);
  }
  void shrink(std::uint64_t query, float factor, std::uint64_t channels) const {
    scale(factor, rows + query * channels, channels);
    for (std::size_t rung = 0; rung < widths.rungs; ++rung) scale(factor, accumulator(rung, query), widths.of(rung));
  }

  Widths widths;
  std::uint64_t queries;
  float* maxima;
  float* sums;
  float* rows;
  float* accumulators;
};

void* attend_scratch(const CodecInstance& codec, Workspace& workspace) {
  return workspace.codec_scratch.ensure<std::byte>(codec.traits().attend_scratch);
}

class HeadAttention {
 public:
  HeadAttention(const AttendBatch& batch, const AttendTask& task, float* part, Workspace& workspace)
      : shape_(*batch.shape),
        keys_(*batch.keys),
        values_(*batch.values),
        task_(task),
        workspace_(workspace),
        part_(values_, task.rows, part),
        key_tiles_(keys_, task.keys, task.slots * task.part / task.parts),
        value_tiles_(values_, task.values, task.slots * task.part / task.parts),
        capacity_(key_tiles_.longest() + value_tiles_.longest()) {
    std::fill_n(part_.maxima, task_.rows, minus_infinity);
    std::fill(part_.sums, part + part_size(values_, task_.rows), 0.0F);
    scores_ = workspace_.floats.ensure<float>(task_.rows * capacity_);
    prepare();
    Tile tile{};
    if (key_tiles_.peek(tile)) scored_ = base_ = tile.first;
    weighed_ = base_;
  }

  void run() {
    const std::uint64_t first = task_.slots * task_.part / task_.parts;
    const std::uint64_t end = task_.slots * (task_.part + 1) / task_.parts;
    Tile tile{};
    while (value_tiles_.peek(tile) && tile.first < end) {
      value_tiles_.next(tile);
      if (tile.first < first) continue;  // another part's
      weighed_ = tile.first;
      while (scored_ < tile.end()) score_next_tile();
      weigh(tile);
      add(tile);
      weighed_ = tile.end();
    }
  }

 private:
  void prepare();
  void score_next_tile();
  void mask(const Tile& tile);
  void weigh(const Tile& tile);
  void add(const Tile& tile);
  [[nodiscard]] kvlab_block block_of_tile(const Role& role, const Tile& tile, const Tiles& tiles) const;
  kvlab_rows rows_of_tile(const Role& role, const Tile& tile, const Tiles& tiles, Buffer& decoded) const;

  [[nodiscard]] float* pending(std::uint64_t query, std::uint64_t token) const {
    return scores_ + query * capacity_ + (token - base_);
  }

  const LayerShape& shape_;
  const Role& keys_;
  const Role& values_;
  const AttendTask& task_;
  Workspace& workspace_;
  Part part_;
  Tiles key_tiles_;
  Tiles value_tiles_;
  std::uint64_t capacity_;
  float* scores_ = nullptr;                        // [count, capacity], from token base_ on
  std::array<std::byte*, most_rungs> prepared_{};  // null where the codec has not the ability
  std::uint64_t base_ = 0;
  std::uint64_t scored_ = 0;
  std::uint64_t weighed_ = 0;
};

// Where the next tile of these lies in memory, for prefetching.
void look_ahead(const Role& role, const Tiles& tiles, const void*& ahead, std::uint64_t& size) {
  Tile next{};
  if (!tiles.peek(next)) return;
  if (next.segment->encoded) {  // where in the block its tokens lie is the codec's secret: in proportion
    const std::uint64_t start = next.segment->size * next.in_segment() / next.segment->tokens;
    ahead = next.segment->data + start;
    size = next.segment->size * next.count / next.segment->tokens;
  } else {
    ahead = next.segment->data + next.in_segment() * role.row_bytes();
    size = next.count * role.row_bytes();
  }
}

kvlab_block HeadAttention::block_of_tile(const Role& role, const Tile& tile, const Tiles& tiles) const {
  const Segment& segment = *tile.segment;
  kvlab_block block =
      block_of(task_.kv_head, segment, task_.positions.range(segment.first, segment.tokens, workspace_.positions));
  const void* ahead = nullptr;
  look_ahead(role, tiles, ahead, block.ahead_size);
  block.ahead = static_cast<const std::uint8_t*>(ahead);
  return block;
}

// The tile's rows: where they lie, if raw, else decoded.
kvlab_rows HeadAttention::rows_of_tile(const Role& role, const Tile& tile, const Tiles& tiles, Buffer& decoded) const {
  kvlab_rows rows{};
  rows.stride = role.channels;
  rows.channels = role.channels;
  rows.tokens = tile.count;
  look_ahead(role, tiles, rows.ahead, rows.ahead_size);
  if (!tile.segment->encoded) {
    rows.base = tile.segment->data + tile.in_segment() * role.row_bytes();
    rows.dtype = static_cast<kvlab_dtype>(role.dtype);
    return rows;
  }
  float* out = decoded.ensure<float>(tile.count * role.channels);
  decode(role, task_.kv_head, *tile.segment, task_.positions, tile.in_segment(), tile.count, out, workspace_);
  rows.base = out;
  rows.dtype = KVLAB_F32;
  return rows;
}

// The queries, as each codec that attends to keys in its own form wants them.
void HeadAttention::prepare() {
  constexpr std::uint64_t alignment = Arena::alignment;
  std::uint64_t bytes = 0;
  for (const auto& codec : keys_.codecs) {
    if (codec.attends_keys()) bytes += Arena::padded(codec.prepared_bytes(task_.rows));
  }
  auto* next = workspace_.prepared.ensure<std::byte>(bytes + alignment);
  for (std::size_t rung = 0; rung < keys_.codecs.size(); ++rung) {
    const CodecInstance& codec = keys_.codecs[rung];
    if (!codec.attends_keys()) continue;
    codec.prepare(task_.kv_head, task_.queries, task_.rows, next, attend_scratch(codec, workspace_));
    prepared_[rung] = next;
    next += Arena::padded(codec.prepared_bytes(task_.rows));
  }
}

void HeadAttention::score_next_tile() {
  Tile tile{};
  key_tiles_.next(tile);
  if (tile.end() - base_ > capacity_) {  // what was weighed makes room
    const std::uint64_t keep = std::min(weighed_, scored_);
    for (std::uint64_t q = 0; q < task_.rows; ++q) {
      std::memmove(scores_ + q * capacity_, pending(q, keep), (scored_ - keep) * sizeof(float));
    }
    base_ = keep;
  }
  float* scores = pending(0, tile.first);
  if (tile.segment->encoded && prepared_[tile.segment->rung] != nullptr) {
    const CodecInstance& codec = keys_.codec(*tile.segment);
    const kvlab_block block = block_of_tile(keys_, tile, key_tiles_);
    codec.scores(prepared_[tile.segment->rung], task_.rows, block, tile.in_segment(), tile.count, scores, capacity_,
                 attend_scratch(codec, workspace_));
  } else {
    const kvlab_rows rows = rows_of_tile(keys_, tile, key_tiles_, workspace_.rows);
    kernels().dots(&rows, task_.queries, keys_.channels, task_.rows, scores, capacity_);
  }
  scored_ = tile.end();
}

// Hides from each query tokens after it, and in a layer with window W those at positions <= p - W.
void HeadAttention::mask(const Tile& tile) {
  const auto range = task_.positions.range(tile.first, tile.count, workspace_.positions);
  const auto position_of = [&](std::uint64_t t) { return range.list != nullptr ? range.list[t] : range.first + t; };
  const bool causal = position_of(tile.count - 1) > task_.query_positions.front();
  const bool window = shape_.window > 0 && position_of(0) + shape_.window <= task_.query_positions.back();
  if (!causal && !window && !task_.has_dead) return;
  for (std::uint64_t q = 0; q < task_.rows; ++q) {
    const std::uint64_t position = task_.query_positions[q % task_.query_positions.size()];
    float* scores = pending(q, tile.first);
    for (std::uint64_t t = 0; t < tile.count; ++t) {
      const std::uint64_t token = position_of(t);
      const bool hidden = token > position || (shape_.window > 0 && token + shape_.window <= position);
      if (hidden) scores[t] = minus_infinity;
    }
  }
}

// Turns the tile's scores into weights exp(logit - m), after m, l and o were brought up to date.
void HeadAttention::weigh(const Tile& tile) {
  const auto attention_scale = static_cast<float>(shape_.attention_scale);
  bool finite = true;
  for (std::uint64_t q = 0; q < task_.rows; ++q) {
    kernels().scale_and_max(pending(q, tile.first), tile.count, attention_scale, finite);
  }
  // Minus infinity is what the host masks with; a method's own would pass for it.
  if (!finite) {
    throw MethodError(KVLAB_INTERNAL, "an attention score is not finite in layer " + std::to_string(shape_.layer) +
                                          ", KV head " + std::to_string(task_.kv_head));
  }
  mask(tile);
  for (std::uint64_t q = 0; q < task_.rows; ++q) {
    float* scores = pending(q, tile.first);
    bool any = true;
    const float maximum = std::max(part_.maxima[q], kernels().scale_and_max(scores, tile.count, 1, any));
    if (maximum == minus_infinity) {  // all masked so far
      std::fill_n(scores, tile.count, 0.0F);
      continue;
    }
    if (maximum > part_.maxima[q]) {
      const float shrink = std::exp(part_.maxima[q] - maximum);
      part_.sums[q] *= shrink;
      part_.shrink(q, shrink, values_.channels);
      part_.maxima[q] = maximum;
    }
    part_.sums[q] += kernels().exponentials(scores, tile.count, maximum);
  }
}

void HeadAttention::add(const Tile& tile) {
  const float* weights = pending(0, tile.first);
  if (tile.segment->encoded && values_.codec(*tile.segment).attends_values()) {
    const CodecInstance& codec = values_.codec(*tile.segment);
    const kvlab_block block = block_of_tile(values_, tile, value_tiles_);
    codec.accumulate(weights, task_.rows, capacity_, block, tile.in_segment(), tile.count,
                     part_.accumulator(tile.segment->rung, 0), attend_scratch(codec, workspace_));
    return;
  }
  const kvlab_rows rows = rows_of_tile(values_, tile, value_tiles_, workspace_.more_rows);
  kernels().sums(&rows, weights, capacity_, task_.rows, part_.rows, values_.channels);
}

// a += b, both brought to the larger maximum.
void merge(std::uint64_t channels, const Part& a, const Part& b) {
  for (std::uint64_t q = 0; q < a.queries; ++q) {
    const float maximum = std::max(a.maxima[q], b.maxima[q]);
    if (maximum == minus_infinity) continue;
    const float ours = std::exp(a.maxima[q] - maximum);
    const float theirs = std::exp(b.maxima[q] - maximum);
    a.maxima[q] = maximum;
    a.sums[q] = a.sums[q] * ours + b.sums[q] * theirs;
    a.shrink(q, ours, channels);
    add_scaled(theirs, b.rows + q * channels, a.rows + q * channels, channels);
    for (std::size_t rung = 0; rung < a.widths.rungs; ++rung) {
      add_scaled(theirs, b.accumulator(rung, q), a.accumulator(rung, q), a.widths.of(rung));
    }
  }
}

}  // namespace

std::uint64_t part_size(const Role& values, std::uint64_t rows) {
  return 2 * in_lines(rows) + in_lines(rows * values.channels) + in_lines(rows * Widths(values).total());
}

void attend_part(const AttendBatch& batch, const AttendTask& task, float* part, Workspace& workspace) {
  HeadAttention(batch, task, part, workspace).run();
}

void merge_parts(const AttendBatch& batch, const AttendTask& task, float* parts, Workspace& workspace) {
  const Role& values = *batch.values;
  const std::uint64_t channels = values.channels;
  const std::uint64_t size = part_size(values, task.rows);
  const Part part(values, task.rows, parts);
  for (std::uint64_t i = 1; i < task.parts; ++i) merge(channels, part, Part(values, task.rows, parts + i * size));
  std::fill_n(task.out, task.rows * channels, 0.0F);
  float* finished = workspace.floats.ensure<float>(task.rows * channels);
  for (std::size_t rung = 0; rung < values.codecs.size(); ++rung) {
    const CodecInstance& codec = values.codecs[rung];
    if (!codec.attends_values()) continue;
    codec.finish(task.kv_head, part.accumulator(rung, 0), task.rows, finished, attend_scratch(codec, workspace));
    add_scaled(1, finished, task.out, task.rows * channels);
  }
  for (std::uint64_t q = 0; q < task.rows; ++q) {
    add_scaled(1, part.rows + q * channels, task.out + q * channels, channels);
    scale(part.sums[q] > 0 ? 1 / part.sums[q] : 0, task.out + q * channels, channels);
  }
}

}  // namespace kvlab::cpu
