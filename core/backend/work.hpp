// What bookkeeping asks of a backend: batches of independent tasks over plain descriptors. Whoever makes them decides
// what stands where and touches none of it: only a backend reads and writes its memory. Pointers are to backend memory
// unless said; callers' tensors are in host memory.
//
// Of the works of one run the checks come first, then the moves and uploads, in their order; then copies, scores,
// encodes and gathers, all in one batch: none of them reads what another of the same run writes. What a task gives
// (scores, blocks, refusals) is there after the backend's next synchronize().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/backend/positions_view.hpp"
#include "core/backend/segment.hpp"

namespace kvlab {

// Rows that a task reads, of one role of one head: `count` from `first` on, or those that are picked.
struct Source {
  TokenRows rows;                  // raw ones
  const Segment* block = nullptr;  // else: a block's
  PositionsView positions;         // of the block's tokens: those from `slot` on
  std::uint64_t slot = 0;
  std::uint32_t kv_head = 0;
  std::uint64_t first = 0;  // of the rows, or of the block's tokens
  std::uint64_t count = 0;
  const std::uint32_t* picked = nullptr;  // host memory, [count], ascending; they take the place of first
};

// Where a caller's rows come from, for the sentence that refuses them.
struct Origin {
  const LayerShape* shape = nullptr;  // null: they are not the caller's, and not looked at
  std::uint32_t role = 0;
  std::uint64_t sequence = 0;  // of the tensor
  std::uint32_t kv_head = 0;
};

// Sources [first, first + count) of the Work, their rows side by side.
struct Sources {
  std::size_t first = 0;
  std::size_t count = 0;
};

// Throws InputError where a number is not finite.
struct CheckTask {
  Origin origin;
  TokenRows rows;
  std::uint64_t count = 0;
};

// Rows of one source, side by side.
struct CopyTask {
  const Role* role = nullptr;
  std::size_t source = 0;
  std::byte* to = nullptr;
  bool past_caches = false;  // a hint: what is written will not be found in a cache when it is read
  Origin origin;
};

// A block of `tokens` tokens, of the codec of a rung.
struct EncodeTask {
  const Role* role = nullptr;
  std::uint8_t rung = 0;
  std::uint32_t kv_head = 0;
  std::uint64_t tokens = 0;
  Sources sources;
  PositionsView positions;
  std::uint64_t slot = 0;  // of the first token, in `positions`
  bool past_caches = false;
  Origin origin;
  std::shared_ptr<Piece> piece;  // where the codec fills its bound; else memory is taken of the arena, by size
  Promise* promise = nullptr;    // that memory is out of this, if given
  Segment made;                  // all but `first`
};

// What is left of a block: picked tokens of it. `refused`: the codec cannot.
struct GatherTask {
  const Role* role = nullptr;
  std::size_t source = 0;
  Promise* promise = nullptr;
  bool refused = false;
  Segment made;
};

// A selector's scores of `tokens` tokens.
struct ScoreTask {
  const SelectorInstance* selector = nullptr;
  const LayerShape* shape = nullptr;
  Dtype dtype = Dtype::f32;  // of the rows that it gets; those of blocks are f32
  std::uint32_t sequence = 0;
  std::uint32_t kv_head = 0;
  const std::uint32_t* positions = nullptr;  // host memory, [tokens], ascending; null: neighbours
  std::uint32_t first_position = 0;          // then: of the first
  std::uint64_t tokens = 0;
  const Role* keys_role = nullptr;
  const Role* values_role = nullptr;
  Sources keys;  // none where the selector reads none
  Sources values;
  Origin keys_origin;
  Origin values_origin;
  kvlab_queries observed{};
  float* out = nullptr;     // host memory
  float* stored = nullptr;  // backend memory; one of the two may be null
};

struct Work {
  struct Move {
    const std::byte* from;
    std::byte* to;
    std::size_t bytes;
  };
  struct Upload {
    std::size_t offset;  // in `staged`
    std::byte* to;
    std::size_t bytes;
  };

  std::vector<CheckTask> checks;
  std::vector<Move> moves;  // within the backend's memory
  std::vector<Upload> uploads;
  std::vector<std::byte> staged;  // host memory
  std::vector<Source> sources;
  std::vector<CopyTask> copies;
  std::vector<ScoreTask> scores;
  std::vector<EncodeTask> encodes;
  std::vector<GatherTask> gathers;
  std::vector<std::shared_ptr<Piece>> kept;  // memory that moves are from, until they are done

  template <class T>
  void upload(std::span<const T> values, std::byte* to) {
    const auto bytes = std::as_bytes(values);
    uploads.push_back({staged.size(), to, bytes.size()});
    staged.insert(staged.end(), bytes.begin(), bytes.end());
  }
  [[nodiscard]] std::span<const Source> of(const Sources& range) const {
    return std::span(sources).subspan(range.first, range.count);
  }
  void clear();
};

// Attention of one KV head's group over a range of its slots: a part, merged with the others of its head by the task
// whose end comes last (flash-decoding).
struct AttendTask {
  std::uint32_t kv_head = 0;
  std::uint64_t slots = 0;
  bool has_dead = false;  // slots whose token was evicted
  std::span<const Segment> keys;
  std::span<const Segment> values;
  PositionsView positions;
  const float* queries = nullptr;                  // [rows, head_dim_keys]
  std::uint64_t rows = 0;                          // query i is at position query_positions[i % size]
  std::span<const std::uint32_t> query_positions;  // ascending
  std::uint64_t part = 0;
  std::uint64_t parts = 1;  // of this head, next to each other in the batch
  float* out = nullptr;     // [rows, head_dim_values], 0 where nothing was attended to
};

struct AttendBatch {
  const LayerShape* shape = nullptr;
  const Role* keys = nullptr;
  const Role* values = nullptr;
  std::span<const AttendTask> tasks;
};

// All rows of one role of a head, rounded to its dtype, each at its position; 0 at positions that are not there.
struct ExpandTask {
  const Role* role = nullptr;
  std::uint32_t kv_head = 0;
  std::span<const Segment> segments;
  PositionsView positions;
  std::byte* out = nullptr;  // [positions, channels]
  std::uint64_t length = 0;  // positions
};

}  // namespace kvlab
