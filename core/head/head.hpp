// What a cache holds of one KV head of one sequence.
//
//   slots    0 ........ S ............................. n - R ....................... n
//   keys     | sinks    | block | block | short block   | raw chunk | raw chunk, open |
//   values   | sinks    |    block      | short block   | raw chunk, open             |
//
// A slot is a place of a token, in order. Keys and values are cut apart, each by its codec's block_tokens; a role with
// no codec is raw throughout. What stands where is layout.hpp's rule.
//
// Where selectors evict tokens while others come, those of blocks stay in their slots until the block is half empty:
// dead, masked, and still counted. What is evicted among raw tokens is gone.
//
// A block that waits for a background thread is still its raw chunks, before the cut, with the encoding that will take
// their place; so are blocks that are being recoded.
//
// Memory is pieces of an arena. A fork copies this table and shares the pieces; whoever writes into one that is shared
// copies it first.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/backend/encoding.hpp"
#include "core/backend/segment.hpp"
#include "core/head/layout.hpp"
#include "core/head/positions.hpp"

namespace kvlab {

struct RoleState {
  std::vector<Segment> segments;  // side by side, from slot 0
  std::uint64_t cut = 0;          // slots before which all is sinks, encoded or being encoded; of a raw role 0

  [[nodiscard]] std::uint64_t slots() const { return segments.empty() ? 0 : segments.back().end(); }
};

struct Head {
  Positions positions;
  std::uint64_t dead = 0;                   // slots whose token was evicted
  std::uint64_t unobserved = 0;             // tokens of the prefill that selectors by observed queries dropped
  std::vector<BackendArray<float>> scores;  // per selector: of each slot, where its scores are kept; counted
  RoleState keys;
  RoleState values;
  std::vector<std::shared_ptr<Encoding>> encodings;  // under way; forks share them, and what they give
  bool stale = false;                                // has blocks to be recoded

  [[nodiscard]] std::uint64_t kept() const { return positions.tokens() - dead; }
  [[nodiscard]] RoleState& of(std::uint32_t role) { return role == KVLAB_ROLE_KEYS ? keys : values; }
  [[nodiscard]] const RoleState& of(std::uint32_t role) const { return role == KVLAB_ROLE_KEYS ? keys : values; }
};

// Padded bytes that a chunk or a block takes of an arena, the block at the most.
std::uint64_t bytes_of(const Role& role, const ChunkPlace& chunk);
std::uint64_t bytes_of(const Role& role, const BlockPlace& block);
std::uint64_t capacity_of(const Role& role, const Layout& layout);

// A raw segment with its memory; its rows are to be copied there.
Segment open_chunk(const Role& role, const ChunkPlace& chunk, Arena& arena, Promise& promise);

// Puts what is ready in its place. Throws what an encoding failed with.
void install(Head& head);

}  // namespace kvlab
