// The prefill of one KV head of one sequence: selection, then encoding into the arena.
#pragma once

#include <span>

#include "core/cache/cache.hpp"

namespace kvlab {

class HeadPrefill {
 public:
  HeadPrefill(const Pipeline& pipeline, std::span<const SelectorInstance> selectors, const LayerShape& shape,
              const Prefill& input, Arena& arena, Workspace& workspace, std::uint64_t sequence, std::uint32_t kv_head);

  void run(const Role& keys, const Role& values, Head& head);

 private:
  void copy(std::byte* to, const std::byte* from, std::size_t count) const;
  void select();
  void apply(const SelectorInstance& selector, std::uint64_t budget);
  kvlab_view view(const KvTensor& tensor, std::uint64_t channels, std::span<const std::uint32_t> tokens,
                  Buffer& gathered) const;
  void store_role(const Role& role, const KvTensor& tensor, const Head& head, std::vector<Segment>& segments,
                  Bytes& bytes);
  Segment store_raw(const Role& role, const KvTensor& tensor, std::uint64_t first, std::uint64_t count);
  Segment store_block(const Role& role, const KvTensor& tensor, const Head& head, std::uint64_t first,
                      std::uint64_t count, Bytes& bytes);

  const Pipeline& pipeline_;
  std::span<const SelectorInstance> selectors_;
  const LayerShape& shape_;
  const Prefill& input_;
  Arena& arena_;
  Workspace& workspace_;
  std::uint64_t sequence_;
  std::uint32_t kv_head_;
  std::vector<std::uint32_t>& kept_;  // the workspace's: positions that are still present
};

// Room that one head's positions, raw tokens and blocks need at the most, padding included.
std::uint64_t head_capacity(const Pipeline& pipeline, const Role& keys, const Role& values, std::uint64_t tokens);

}  // namespace kvlab
