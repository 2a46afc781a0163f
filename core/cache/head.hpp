// What a cache holds of one KV head of one sequence.
//
//   kept tokens   0 ........ S ............................. n - R ....................... n
//   keys          | sinks    | block | block | short block   | raw chunk | raw chunk, open |
//   values        | sinks    |    block      | short block   | raw chunk, open             |
//
// Keys and values are cut apart, each by its codec's block_tokens; a role with no codec is raw throughout. What is
// appended goes into raw chunks; once `tail` tokens lie behind a whole block of them, the block is encoded and takes
// their place. The short block that closes a prefill stays as it is, and cutting starts again behind it.
//
// Where selectors evict tokens while others come, those of encoded blocks stay in their slots until the block is half
// empty: dead, masked, and still counted. "Kept tokens" above are slots then. What is evicted among raw tokens is gone.
//
// A block that waits for a background thread is still its raw chunks, before the cut, with the encoding that will take
// their place (encoding.hpp); so are encoded blocks that are being recoded.
//
// Memory is pieces of an arena. A fork copies this table and shares the pieces; whoever writes into one that is shared
// copies it first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/arena.hpp"
#include "core/cache/positions.hpp"

namespace kvlab {

// Bytes of a cache, broken down as the result file reports them. The table of blocks is not counted.
struct Bytes {
  std::uint64_t payload = 0;
  std::uint64_t scales = 0;
  std::uint64_t indices = 0;
  std::uint64_t bases = 0;
  std::uint64_t uncompressed = 0;  // sinks, tail, and roles with no codec

  [[nodiscard]] std::uint64_t total() const { return payload + scales + indices + bases + uncompressed; }
  Bytes& operator+=(const Bytes& other) {
    payload += other.payload;
    scales += other.scales;
    indices += other.indices;
    bases += other.bases;
    uncompressed += other.uncompressed;
    return *this;
  }
};

class Encoding;

struct Segment {
  std::uint64_t first = 0;  // of the kept tokens
  std::uint64_t tokens = 0;
  std::uint64_t room = 0;           // tokens that it may grow to; a block's are its own
  const std::byte* data = nullptr;  // raw: rows in the workload's dtype; else a block of the codec
  std::uint64_t size = 0;
  bool encoded = false;
  std::uint8_t rung = 0;  // whose codec encoded it
  Bytes bytes;            // `size`, broken down
  std::shared_ptr<Piece> piece;
  const Encoding* encoding = nullptr;  // the head's that will take its place
};

struct Head {
  Positions positions;
  std::uint64_t dead = 0;                 // slots whose token was evicted
  std::uint64_t unobserved = 0;           // tokens of the prefill that selectors by observed queries dropped
  std::vector<ArenaArray<float>> scores;  // per selector: of each slot, where its scores are kept; counted
  std::vector<Segment> keys;
  std::vector<Segment> values;
  std::uint64_t key_cut = 0;  // kept tokens before which all is sinks, encoded or being encoded
  std::uint64_t value_cut = 0;
  std::vector<std::shared_ptr<Encoding>> encodings;  // under way; forks share them, and what they give
  bool stale = false;                                // has blocks to be recoded

  [[nodiscard]] std::uint64_t kept() const { return positions.tokens() - dead; }
};

}  // namespace kvlab
