#include "core/cache/layer_cache.hpp"

#include <algorithm>
#include <string>
#include <unordered_set>
#include <utility>

#include "core/base/error.hpp"
#include "core/cache/input.hpp"
#include "core/cache/prefill.hpp"

namespace kvlab {
namespace {

std::shared_ptr<CacheMemory> present(std::shared_ptr<CacheMemory> memory) {
  if (memory == nullptr) throw InputError("a layer's memory is null");
  return memory;
}

}  // namespace

LayerCache::LayerCache(const Pipeline& pipeline, const LayerShape& shape, std::shared_ptr<CacheMemory> memory,
                       bool decodes)
    : layer_(pipeline, shape, decodes), memory_(present(std::move(memory))), sequences_(shape.batch, empty()) {}

LayerCache::~LayerCache() {
  sequences_.clear();
  memory_->backend.quiesce();  // it may be at a block of this layer's
}

// ---- sequences -----------------------------------------------------------------------------------------------------

const LayerCache::Sequence& LayerCache::at(std::uint64_t sequence) const {
  if (sequence >= sequences_.size() || !sequences_[sequence].live) {
    const bool removed = sequence < sequences_.size();
    throw InputError(of_layer(layer_.shape.layer) + "there is no sequence " + std::to_string(sequence) +
                     (removed              ? ": it was removed"
                      : sequences_.empty() ? "; there are none"
                                           : "; valid: 0 .. " + std::to_string(sequences_.size() - 1)));
  }
  return sequences_[sequence];
}

std::uint32_t LayerCache::add() {
  const auto free = std::find_if(sequences_.begin(), sequences_.end(), [](const Sequence& s) { return !s.live; });
  const auto number = static_cast<std::uint32_t>(free - sequences_.begin());
  if (free == sequences_.end()) {
    sequences_.push_back(empty());
  } else {
    *free = empty();
  }
  return number;
}

std::uint32_t LayerCache::fork(std::uint64_t sequence) {
  Sequence copy = at(sequence);
  const std::uint32_t number = add();
  sequences_[number] = std::move(copy);
  return number;
}

const Head& LayerCache::head(std::uint64_t sequence, std::uint32_t kv_head) const {
  const auto& heads = at(sequence).heads;
  if (kv_head >= heads.size()) {
    throw InputError(of_layer(layer_.shape.layer) + "there is no KV head " + std::to_string(kv_head) +
                     "; valid: 0 .. " + std::to_string(heads.size() - 1));
  }
  return heads[kv_head];
}

void LayerCache::clear(std::uint64_t sequence) { at(sequence) = empty(); }

void LayerCache::remove(std::uint64_t sequence) {
  at(sequence) = empty();
  sequences_[sequence].live = false;
}

// ---- tokens --------------------------------------------------------------------------------------------------------

void LayerCache::prefill(const Prefill& input) {
  const std::uint8_t rung = check_prefill(layer_.shape.batch, input);
  sequences_.assign(layer_.shape.batch, empty());
  fill(0, layer_.shape.batch, rung, input);
}

void LayerCache::prefill(std::uint64_t sequence, const Prefill& input) {
  Sequence& own = at(sequence);
  const std::uint8_t rung = check_prefill(1, input);
  own = empty();
  fill(sequence, 1, rung, input);
}

// All that can be said of it without reading keys and values. Returns the rung that its sequences start on.
std::uint8_t LayerCache::check_prefill(std::uint64_t count, const Prefill& input) const {
  check_tensors(layer_.shape, input.keys, input.values, count);
  const bool observes = std::any_of(layer_.selectors.begin(), layer_.selectors.end(),
                                    [](const auto& s) { return (s.reads() & KVLAB_READS_QUERIES) != 0; });
  if (observes && input.tokens() > 0) check_queries(layer_.shape, "observed queries", input.observed, count);
  (void)layer_.pipeline.kept_of(input.tokens());
  return prefill_rung(input.tokens());
}

void LayerCache::fill(std::uint64_t first, std::uint64_t count, std::uint8_t rung, const Prefill& input) {
  std::vector<Head> heads = prefill_heads(layer_, input, count, rung, memory_->arena, memory_->backend);
  for (std::uint64_t i = 0; i < count; ++i) {
    Sequence& sequence = sequences_[first + i];
    sequence.tokens = input.tokens();
    sequence.rung = rung;
    std::move(heads.begin() + static_cast<std::ptrdiff_t>(i * layer_.shape.kv_heads),
              heads.begin() + static_cast<std::ptrdiff_t>((i + 1) * layer_.shape.kv_heads), sequence.heads.begin());
  }
}

void LayerCache::count_rungs(std::uint64_t sequence, std::uint32_t kv_head, std::uint32_t which,
                             std::span<std::uint64_t> tokens) const {
  const Head& own = head(sequence, kv_head);
  std::vector<std::uint32_t> positions;
  own.positions.write_out(positions);
  for (const Segment& segment : own.of(which).segments) {
    const auto first = positions.begin() + static_cast<std::ptrdiff_t>(segment.first);
    tokens[segment.encoded ? std::size_t{segment.rung} + 1 : 0] +=
        static_cast<std::uint64_t>(std::count_if(first, first + static_cast<std::ptrdiff_t>(segment.tokens),
                                                 [](std::uint32_t position) { return position < evicted; }));
  }
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
  for (const auto* role : {&head.keys, &head.values}) {
    for (const auto& segment : role->segments) body(segment.piece, segment.bytes);
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
