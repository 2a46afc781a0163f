// The prefill of one KV head of one sequence: selection, then encoding into the arena.
#pragma once

#include <span>

#include "core/cache/cache.hpp"
#include "core/cache/encoder.hpp"
#include "core/cache/ladder.hpp"

namespace kvlab {

struct PrefillOptions {
  const RungRule& rule;      // which codec a block gets
  bool past_caches = false;  // what is written will not be found in a cache when it is read
  bool keep_scores = false;  // for eviction as more tokens come
};

class HeadPrefill {
 public:
  HeadPrefill(const Pipeline& pipeline, std::span<const SelectorInstance> selectors, const LayerShape& shape,
              const Prefill& input, Arena& arena, Workspace& workspace, std::uint64_t sequence, std::uint32_t kv_head,
              const PrefillOptions& options);

  // `sequence` is the input's; on failure the head is as it was.
  void run(const Role& keys, const Role& values, Head& head);

 private:
  void select(Head& head);
  void apply(std::size_t step, Head& head);
  void keep_scores(std::size_t step, std::span<const float> scores, std::span<const std::uint32_t> stay, Head& head);
  [[nodiscard]] kvlab_queries observed() const;
  void check(std::uint32_t role, const TokenRows& rows, std::span<const std::uint32_t> tokens) const;
  [[nodiscard]] TokenRows rows(const KvTensor& tensor, std::uint64_t channels, std::span<const std::uint32_t> tokens,
                               Buffer& gathered) const;
  std::uint64_t store(const Role& role, std::uint32_t which, const KvTensor& tensor, const Positions& positions,
                      std::vector<Segment>& segments);

  const Pipeline& pipeline_;
  std::span<const SelectorInstance> selectors_;
  const LayerShape& shape_;
  const Prefill& input_;
  Arena& arena_;
  Workspace& workspace_;
  std::uint64_t sequence_;
  std::uint32_t kv_head_;
  const RungRule& rule_;
  bool past_caches_;
  bool keep_scores_;
  std::uint32_t checked_ = 0;         // KVLAB_READS_KEYS, _VALUES: a selector read all of them, and they are finite
  std::vector<std::uint32_t>& kept_;  // the workspace's: positions that are still present
};

// Room that one head's positions, raw tokens and blocks need at the most, padding included.
std::uint64_t head_capacity(const Pipeline& pipeline, const Role& keys, const Role& values, std::uint64_t tokens);

}  // namespace kvlab
