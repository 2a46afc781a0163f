// Tokens that come one after another, of one KV head of one sequence: into the open raw chunk, and a block at a time
// from the raw chunks into the codec. Nothing that is encoded is touched, but by a ladder that recodes.
#pragma once

#include "core/cache/cache.hpp"
#include "core/cache/encoder.hpp"
#include "core/cache/ladder.hpp"

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
  // background: encodes blocks; null where this call does. A head has at most `most_under_way` encodings of a role
  // there, what is more is encoded at once.
  HeadAppend(const Pipeline& pipeline, const RungRule& rule, const Role& keys, const Role& values, Arena& arena,
             Background* background, Workspace& workspace, std::uint32_t kv_head)
      : pipeline_(pipeline),
        rule_(rule),
        keys_(keys),
        values_(values),
        arena_(arena),
        background_(background),
        workspace_(workspace),
        kv_head_(kv_head) {}

  static constexpr std::size_t most_under_way = 2;

  void run(const NewTokens& tokens, Head& head);
  // Scores the tokens with each selector whose scores are kept, for eviction.
  void score(std::span<const SelectorInstance> selectors, const LayerShape& shape, std::uint32_t sequence,
             const NewTokens& tokens, Head& head);
  // Some stale blocks of each role, if the budget has room for them: whole blocks of the codec that they are recoded
  // to.
  void recode(Head& head);
  // All that is under way.
  void settle_all(Head& head);
  // That, and all that is stale. Throws BudgetError where there is no room.
  void finish(Head& head);

 private:
  void add(const Role& role, TokenRows rows, const NewTokens& tokens, std::uint64_t cut,
           std::vector<Segment>& segments);
  void encode(const Role& role, std::uint64_t total, std::uint64_t& cut, std::vector<Segment>& segments, Head& head);
  void split(const Role& role, std::uint64_t tokens, std::size_t at, std::uint64_t block,
             std::vector<Segment>& segments);
  void recode_more(Head& head);
  bool recode_role(const Role& role, std::vector<Segment>& segments, Head& head);
  void start(const Role& role, std::uint8_t rung, std::size_t begin, std::size_t end, std::vector<Segment>& segments,
             Head& head);
  [[nodiscard]] static std::size_t under_way(const Role& role, const Head& head);

  const Pipeline& pipeline_;
  const RungRule& rule_;
  const Role& keys_;
  const Role& values_;
  Arena& arena_;
  Background* background_;
  Workspace& workspace_;
  std::uint32_t kv_head_;
};

// The most padded bytes that appending takes of the arena, before it gives any back. `total`: the sequence's tokens
// before it.
std::uint64_t append_capacity(const Pipeline& pipeline, const RungRule& rule, const Role& keys, const Role& values,
                              const Head& head, std::uint64_t total, std::uint64_t count);

}  // namespace kvlab
