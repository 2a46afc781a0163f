// What a cache holds of one KV head of one sequence.
//
//   kept tokens   0 ............ S ........................... n - R ....... n
//   keys          | sinks, raw   | block | block | short block | tail, raw   |
//   values        | sinks, raw   |    block     |  short block | tail, raw   |
//
// Keys and values are cut apart, each by its codec's block_tokens; a role with no codec is one raw segment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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

struct Segment {
  std::uint64_t first;  // of the kept tokens
  std::uint64_t tokens;
  const std::byte* data;  // raw: rows in the workload's dtype; else a block of the codec
  std::uint64_t size;
  bool encoded;
};

struct Head {
  Positions positions;
  std::vector<Segment> keys;
  std::vector<Segment> values;
  Bytes bytes;
};

}  // namespace kvlab
