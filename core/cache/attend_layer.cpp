// LayerCache: attention of a batch, split into parts for the pool.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>

#include "core/base/error.hpp"
#include "core/cache/attend.hpp"
#include "core/cache/cache.hpp"
#include "core/cache/input.hpp"

namespace kvlab {
namespace {

// Into how many parts the tokens of a head are split, so that all threads have work: a matter of the cache alone, for
// a result must not depend on how many threads there are.
std::uint64_t parts_of(std::uint64_t tokens, std::uint64_t heads) {
  constexpr std::uint64_t wanted = 128;  // parts of a call
  constexpr std::uint64_t least_tokens = 1024;
  return std::clamp<std::uint64_t>(tokens / least_tokens, 1, (wanted + heads - 1) / heads);
}

}  // namespace

void LayerCache::attend(const QueryTensor& queries, float* out, ThreadPool& pool) {
  std::vector<std::uint32_t> all;
  std::vector<std::uint32_t> positions;
  for (std::uint32_t i = 0; i < sequences_.size(); ++i) {
    if (!sequences_[i].live) continue;
    all.push_back(i);
    positions.insert(positions.end(), queries.positions.begin(), queries.positions.end());
  }
  attend(all, queries.base, positions, out, pool);
}

void LayerCache::attend(std::span<const std::uint32_t> sequences, const float* queries,
                        std::span<const std::uint32_t> positions, float* out, ThreadPool& pool) {
  if (sequences.empty()) throw InputError(of_layer(shape_.layer) + "attend names no sequence; valid: from 1");
  for (const std::uint32_t sequence : sequences) (void)at(sequence);
  check_queries(shape_, "queries", queries, positions, sequences.size());
  if (out == nullptr) throw InputError(of_layer(shape_.layer) + "there is nowhere to write the outputs (null)");
  CacheMemory& memory = *memory_;
  memory.workspaces.resize(std::max(memory.workspaces.size(), pool.threads()));
  const std::uint64_t count = positions.size() / sequences.size();
  const std::uint64_t rows = count * shape_.group();
  const std::uint64_t size = part_size(*this, rows);
  const std::uint64_t heads = sequences.size() * shape_.kv_heads;
  attend_parts_.clear();
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& sequence = at(sequences[i]);
    for (std::uint32_t kv_head = 0; kv_head < shape_.kv_heads; ++kv_head) {
      const std::uint64_t parts = parts_of(sequence.heads[kv_head].positions.tokens(), heads);
      for (std::uint64_t part = 0; part < parts; ++part) attend_parts_.push_back({i, kv_head, part, parts});
    }
  }
  float* parts = memory.parts.ensure<float>(attend_parts_.size() * size);
  auto* left = memory.parts_left.ensure<std::atomic<std::uint64_t>>(heads);
  for (const auto& part : attend_parts_) {
    if (part.index == 0) std::construct_at(left + part.sequence * shape_.kv_heads + part.kv_head, part.of);
  }
  pool.parallel_for(attend_parts_.size(), [&](std::size_t index, std::size_t thread) {
    const AttendPart& part = attend_parts_[index];
    const Head& head = sequences_[sequences[part.sequence]].heads[part.kv_head];
    const std::uint64_t first_row =
        count * (part.sequence * shape_.query_heads + std::uint64_t{part.kv_head} * shape_.group());
    const QueryRows own{queries + first_row * shape_.head_dim_keys, rows,
                        positions.subspan(part.sequence * count, count)};
    const std::uint64_t tokens = head.positions.tokens();
    float* base = parts + (index - part.index) * size;
    attend_part(*this, head, part.kv_head, own, tokens * part.index / part.of, tokens * (part.index + 1) / part.of,
                base + part.index * size, memory.workspaces[thread]);
    if (left[part.sequence * shape_.kv_heads + part.kv_head].fetch_sub(1) == 1) {
      // The last one merges, always in the same order.
      merge_parts(*this, part.kv_head, own, base, part.of, out + first_row * shape_.head_dim_values,
                  memory.workspaces[thread]);
    }
  });
}

}  // namespace kvlab
