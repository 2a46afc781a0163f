// LayerCache: attention of a batch, and all of it decoded, as tasks of a backend.
#include <algorithm>
#include <string>

#include "core/base/error.hpp"
#include "core/cache/input.hpp"
#include "core/cache/layer_cache.hpp"

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

void LayerCache::attend(const QueryTensor& queries, float* out) {
  std::vector<std::uint32_t> all;
  for (std::uint32_t i = 0; i < sequences_.size(); ++i) {
    if (sequences_[i].live) all.push_back(i);
  }
  attend(all, queries, out);
}

void LayerCache::attend(std::span<const std::uint32_t> sequences, const QueryTensor& queries, float* out) {
  const LayerShape& shape = layer_.shape;
  if (sequences.empty()) throw InputError(of_layer(shape.layer) + "attend names no sequence; valid: from 1");
  for (const std::uint32_t sequence : sequences) (void)at(sequence);
  check_queries(shape, "queries", queries, sequences.size());
  if (out == nullptr) throw InputError(of_layer(shape.layer) + "there is nowhere to write the outputs (null)");
  const std::uint64_t count = queries.count;
  const std::uint64_t heads = sequences.size() * shape.kv_heads;
  std::vector<AttendTask>& tasks = memory_->tables.attend;
  tasks.clear();
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    for (std::uint32_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      const Head& head = at(sequences[i]).heads[kv_head];
      const std::uint64_t first_row = count * (i * shape.query_heads + std::uint64_t{kv_head} * shape.group());
      AttendTask task;
      task.kv_head = kv_head;
      task.slots = head.positions.tokens();
      task.has_dead = head.dead > 0;
      task.keys = head.keys.segments;
      task.values = head.values.segments;
      task.positions = head.positions.view();
      task.queries = queries.base + first_row * shape.head_dim_keys;
      task.rows = count * shape.group();
      task.query_positions = queries.positions_of(i);
      task.parts = parts_of(task.slots, heads);
      task.out = out + first_row * shape.head_dim_values;
      for (; task.part < task.parts; ++task.part) tasks.push_back(task);
    }
  }
  memory_->backend.attend({&shape, &layer_.keys, &layer_.values, tasks});
  memory_->backend.synchronize();
}

void LayerCache::decompress(void* keys, void* values) {
  std::vector<const Sequence*> live;
  std::uint64_t longest = 0;
  for (const auto& sequence : sequences_) {
    if (!sequence.live) continue;
    live.push_back(&sequence);
    longest = std::max(longest, sequence.tokens);
  }
  if (longest > 0 && (keys == nullptr || values == nullptr)) {
    throw InputError(of_layer(layer_.shape.layer) + "there is nowhere to write the keys or the values (null)");
  }
  std::vector<ExpandTask> tasks;
  for (std::size_t i = 0; i < live.size() * layer_.shape.kv_heads; ++i) {
    const auto kv_head = static_cast<std::uint32_t>(i % layer_.shape.kv_heads);
    const Head& head = live[i / layer_.shape.kv_heads]->heads[kv_head];
    for (const std::uint32_t which : both_roles) {
      const Role& role = layer_.role(which);
      auto* out = static_cast<std::byte*>(which == KVLAB_ROLE_KEYS ? keys : values) + i * longest * role.row_bytes();
      tasks.push_back({&role, kv_head, head.of(which).segments, head.positions.view(), out, longest});
    }
  }
  memory_->backend.expand(tasks);
  memory_->backend.synchronize();
}

}  // namespace kvlab
