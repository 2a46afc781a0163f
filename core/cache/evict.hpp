// Eviction while tokens come: the selectors' budgets kept within one block, of one KV head of one sequence.
//
// When the kept tokens exceed the budget of all that were seen by a block, the selectors run again, in order: on the
// scores that were kept of each token, or, where a score depends on the tokens present, over the rows of all of them
// (abi.h, KVLAB_SCOPE_*). Selectors by observed queries chose among the tokens of the prefill; here they are passed
// over, and what they dropped counts as never seen. Those that do not stay leave:
//
//   slots     0 ... sinks | encoded by all codecs ........ | by one | raw ......... | tail |
//   evicted   never       | dead, until half of a cell is   | dead   | gone at once  | never|
//
// A cell is slots between cuts that all codecs have in common. A cell that is all dead goes; one that is half dead is
// compacted, each block by its codec's gather; where a codec cannot, it stays as it is.
#pragma once

#include <span>

#include "core/cache/encoder.hpp"
#include "core/cache/ladder.hpp"
#include "core/cache/pipeline.hpp"

namespace kvlab {

class HeadEvict {
 public:
  HeadEvict(const Pipeline& pipeline, const RungRule& rule, std::span<const SelectorInstance> selectors,
            const LayerShape& shape, const Role& keys, const Role& values, Arena& arena, Workspace& workspace,
            std::uint32_t sequence, std::uint32_t kv_head)
      : pipeline_(pipeline),
        rule_(rule),
        selectors_(selectors),
        shape_(shape),
        keys_(keys),
        values_(values),
        arena_(arena),
        workspace_(workspace),
        sequence_(sequence),
        kv_head_(kv_head) {}

  // `total`: tokens that the sequence has seen.
  void run(std::uint64_t total, Head& head);

 private:
  enum class Slot : std::uint8_t { kept, dead, removed };

  [[nodiscard]] std::uint64_t of_budget(const Budget& budget, std::uint64_t present) const;
  [[nodiscard]] bool reads_rows() const;
  void choose(std::uint64_t total, const Head& head);
  std::span<const float> scores_of(std::size_t step, const Head& head);
  void mark(const Head& head);
  [[nodiscard]] std::vector<std::uint64_t> cells(const Head& head) const;
  [[nodiscard]] bool compacts(std::uint64_t first, std::uint64_t end) const;
  [[nodiscard]] bool must_settle(const Head& head) const;
  void remove_cells(const Head& head);
  bool gather_cell(const Role& role, const Head& head, const std::vector<Segment>& segments, std::uint64_t first,
                   std::uint64_t end, std::vector<Segment>& gathered);
  void rebuild(Head& head);
  void rebuild_role(const Role& role, std::uint64_t& cut, std::vector<Segment>& segments,
                    std::vector<Segment>& gathered);
  void rebuild_scores(Head& head);
  [[nodiscard]] std::uint64_t dead_in(std::uint64_t first, std::uint64_t end) const;
  std::byte* rows_left(const Role& role, std::span<const Segment> segments, std::uint64_t& tokens);

  const Pipeline& pipeline_;
  const RungRule& rule_;
  std::span<const SelectorInstance> selectors_;
  const LayerShape& shape_;
  const Role& keys_;
  const Role& values_;
  Arena& arena_;
  Workspace& workspace_;
  std::uint32_t sequence_;
  std::uint32_t kv_head_;
  std::uint64_t total_ = 0;
  std::vector<std::uint32_t> positions_;  // of the slots
  std::vector<std::uint32_t> present_;    // positions of the tokens that a selector is called over
  std::vector<Slot> slots_;
  std::vector<Segment> gathered_keys_;  // compacted blocks, by their old first slot
  std::vector<Segment> gathered_values_;
};

// Tokens above the budget at which a head evicts: a block.
std::uint64_t eviction_step(const Role& keys, const Role& values);
// Padded bytes that an eviction takes at the most before it gives any back.
std::uint64_t eviction_capacity(const Role& keys, const Role& values, const Head& head);

}  // namespace kvlab
