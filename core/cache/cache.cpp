#include "core/cache/cache.hpp"

#include <algorithm>
#include <string>
#include <unordered_set>
#include <utility>

#include "core/base/error.hpp"
#include "core/cache/encoding.hpp"
#include "core/cache/input.hpp"
#include "core/cache/prefill.hpp"

namespace kvlab {
namespace {

std::shared_ptr<CacheMemory> present(std::shared_ptr<CacheMemory> memory) {
  if (memory == nullptr) throw InputError("a layer's memory is null");
  return memory;
}

// Memory that is larger than caches is written past them.
constexpr std::uint64_t beyond_caches = std::uint64_t{64} << 20;

}  // namespace

LayerCache::LayerCache(const Pipeline& pipeline, const LayerShape& shape, std::shared_ptr<CacheMemory> memory,
                       bool decodes)
    : shape_((shape.check(), shape)),
      pipeline_((pipeline.check(), pipeline)),
      rule_(rung_rule(pipeline)),
      keys_(make_role(pipeline, shape, KVLAB_ROLE_KEYS)),
      values_(make_role(pipeline, shape, KVLAB_ROLE_VALUES)),
      memory_(present(std::move(memory))),
      decodes_(decodes),
      sequences_(shape.batch, empty()) {
  for (const auto& step : pipeline.select) selectors_.emplace_back(step.selector, shape.describe(KVLAB_ROLE_BOTH));
}

LayerCache::~LayerCache() {
  sequences_.clear();
  memory_->background.quiesce();  // it may be at a block of this layer's
}

// ---- sequences -----------------------------------------------------------------------------------------------------

const LayerCache::Sequence& LayerCache::at(std::uint64_t sequence) const {
  if (sequence >= sequences_.size() || !sequences_[sequence].live) {
    const bool removed = sequence < sequences_.size();
    throw InputError(of_layer(shape_.layer) + "there is no sequence " + std::to_string(sequence) +
                     (removed              ? ": it was removed"
                      : sequences_.empty() ? "; there are none"
                                           : "; valid: 0 .. " + std::to_string(sequences_.size() - 1)));
  }
  return sequences_[sequence];
}

std::uint32_t LayerCache::add() {
  const auto free = std::find_if(sequences_.begin(), sequences_.end(), [](const Sequence& s) { return !s.live; });
  const auto slot = static_cast<std::uint32_t>(free - sequences_.begin());
  if (free == sequences_.end()) {
    sequences_.push_back(empty());
  } else {
    *free = empty();
  }
  return slot;
}

std::uint32_t LayerCache::fork(std::uint64_t sequence) {
  Sequence copy = at(sequence);
  const std::uint32_t slot = add();
  sequences_[slot] = std::move(copy);
  return slot;
}

const Head& LayerCache::head(std::uint64_t sequence, std::uint32_t kv_head) const {
  const auto& heads = at(sequence).heads;
  if (kv_head >= heads.size()) {
    throw InputError(of_layer(shape_.layer) + "there is no KV head " + std::to_string(kv_head) + "; valid: 0 .. " +
                     std::to_string(heads.size() - 1));
  }
  return heads[kv_head];
}

void LayerCache::clear(std::uint64_t sequence) { at(sequence) = empty(); }

void LayerCache::remove(std::uint64_t sequence) {
  at(sequence) = empty();
  sequences_[sequence].live = false;
}

// ---- tokens --------------------------------------------------------------------------------------------------------

void LayerCache::prefill(const Prefill& input, ThreadPool& pool) {
  const std::uint8_t rung = check_prefill(shape_.batch, input);
  sequences_.assign(shape_.batch, empty());
  fill(0, shape_.batch, rung, input, pool);
}

void LayerCache::prefill(std::uint64_t sequence, const Prefill& input, ThreadPool& pool) {
  Sequence& own = at(sequence);
  const std::uint8_t rung = check_prefill(1, input);
  own = empty();
  fill(sequence, 1, rung, input, pool);
}

// All that can be said of it without reading keys and values. Returns the rung that its sequences start on.
std::uint8_t LayerCache::check_prefill(std::uint64_t count, const Prefill& input) const {
  if (input.tokens > most_tokens) {
    throw InputError(of_layer(shape_.layer) + "tokens is " + std::to_string(input.tokens) + "; valid: 0 .. 2^31");
  }
  check_tensor(shape_, KVLAB_ROLE_KEYS, input.keys, count, input.tokens);
  check_tensor(shape_, KVLAB_ROLE_VALUES, input.values, count, input.tokens);
  const bool observes = std::any_of(selectors_.begin(), selectors_.end(),
                                    [](const auto& s) { return (s.reads() & KVLAB_READS_QUERIES) != 0; });
  if (observes && input.tokens > 0) check_observed(count, input.observed);
  (void)pipeline_.kept_of(input.tokens);
  return prefill_rung(input.tokens);
}

// A selector reads them.
void LayerCache::check_observed(std::uint64_t count, const QueryTensor& observed) const {
  std::vector<std::uint32_t> positions;  // of all sequences, the same in each
  for (std::uint64_t i = 0; i < count; ++i) {
    positions.insert(positions.end(), observed.positions.begin(), observed.positions.end());
  }
  check_queries(shape_, "observed queries", observed.base, positions, count);
}

void LayerCache::fill(std::uint64_t first, std::uint64_t count, std::uint8_t rung, const Prefill& input,
                      ThreadPool& pool) {
  CacheMemory& memory = *memory_;
  memory.workspaces.resize(std::max(memory.workspaces.size(), pool.threads()));
  const std::uint64_t capacity = count * shape_.kv_heads * head_capacity(pipeline_, keys_, values_, input.tokens);
  const RungRule rule = rule_on(rung);
  memory.arena.prepare(capacity);
  try {
    pool.parallel_for(count * shape_.kv_heads, [&](std::size_t index, std::size_t thread) {
      const std::uint64_t sequence = index / shape_.kv_heads;
      const auto kv_head = static_cast<std::uint32_t>(index % shape_.kv_heads);
      HeadPrefill head(pipeline_, selectors_, shape_, input, memory.arena, memory.workspaces[thread], sequence, kv_head,
                       {rule, capacity >= beyond_caches, decodes_});
      head.run(keys_, values_, sequences_[first + sequence].heads[kv_head]);
    });
  } catch (...) {
    for (std::uint64_t i = 0; i < count; ++i) sequences_[first + i] = empty();
    throw;
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    sequences_[first + i].tokens = input.tokens;
    sequences_[first + i].rung = rung;
  }
}

void LayerCache::decode(const Role& role, const Head& head, std::uint32_t kv_head, const Segment& segment,
                        std::uint64_t first, std::uint64_t count, float* rows, Workspace& workspace) {
  if (!segment.encoded) {
    const std::byte* data = segment.data + (first - segment.first) * role.row_bytes();
    to_f32(role.dtype, data, rows, count * role.channels);
    return;
  }
  const kvlab_block block = block_of(head, kv_head, segment, workspace.positions);
  decode_block(role, segment, block, first - segment.first, count, rows, workspace);
}

// ---- memory --------------------------------------------------------------------------------------------------------

// Calls body(piece, its bytes) for all pieces of a head.
template <class Body>
void for_pieces(const Head& head, Body&& body) {
  const auto index = [&](const std::shared_ptr<Piece>& piece) {
    Bytes bytes;
    if (piece != nullptr) bytes.indices = piece->used();
    if (piece != nullptr) body(piece, bytes);
  };
  index(head.positions.piece());
  for (const auto& scores : head.scores) index(scores.piece());
  for (const auto* segments : {&head.keys, &head.values}) {
    for (const auto& segment : *segments) body(segment.piece, segment.bytes);
  }
  for (const auto& encoding : head.encodings) {  // made, but not in its place yet
    for (const auto& block : encoding->made()) body(block.piece, block.bytes);
  }
}

// Pieces that several sequences share are counted once.
Bytes LayerCache::bytes() const {
  Bytes sum;
  std::unordered_set<const Piece*> shared;
  for (const auto& sequence : sequences_) {
    for (const auto& head : sequence.heads) {
      for_pieces(head, [&](const std::shared_ptr<Piece>& piece, const Bytes& bytes) {
        if (piece.use_count() == 1 || shared.insert(piece.get()).second) sum += bytes;
      });
    }
  }
  return sum;
}

std::uint64_t LayerCache::bytes_of(std::uint64_t sequence) const {
  std::uint64_t sum = 0;
  for (const auto& head : at(sequence).heads) {
    for_pieces(head, [&](const std::shared_ptr<Piece>&, const Bytes& bytes) { sum += bytes.total(); });
    for (const auto& encoding : head.encodings) sum += encoding->made().empty() ? encoding->bound() : 0;
  }
  return sum;
}

}  // namespace kvlab
