// Tokens that come one after another, of one KV head of one sequence: into the open raw chunk, and a block at a time
// from the raw chunks into the codec. Nothing that is encoded is touched.
#pragma once

#include "core/cache/cache.hpp"
#include "core/cache/encoder.hpp"

namespace kvlab {

// Rows of the tokens that come, of one head.
struct NewTokens {
  TokenRows keys;
  TokenRows values;
  std::uint32_t position;  // of the first
  std::uint64_t count;
};

class HeadAppend {
 public:
  HeadAppend(const Pipeline& pipeline, Arena& arena, Workspace& workspace, std::uint32_t kv_head)
      : pipeline_(pipeline), arena_(arena), workspace_(workspace), kv_head_(kv_head) {}

  void run(const Role& keys, const Role& values, const NewTokens& tokens, Head& head);
  // Scores the tokens with each selector that reads more than positions, for eviction.
  void score(std::span<const SelectorInstance> selectors, const LayerShape& shape, std::uint32_t sequence,
             const NewTokens& tokens, Head& head);

 private:
  void add(const Role& role, TokenRows rows, std::uint64_t count, std::uint64_t cut, std::vector<Segment>& segments);
  void encode(const Role& role, const Positions& positions, std::uint64_t& cut, std::vector<Segment>& segments);

  const Pipeline& pipeline_;
  Arena& arena_;
  Workspace& workspace_;
  std::uint32_t kv_head_;
};

// The most padded bytes that appending takes of the arena, before it gives any back.
std::uint64_t append_capacity(const Pipeline& pipeline, const Role& keys, const Role& values, const Head& head,
                              std::uint64_t count);

}  // namespace kvlab
