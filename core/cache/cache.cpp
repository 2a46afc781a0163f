#include "core/cache/cache.hpp"

#include <algorithm>
#include <string>
#include <unordered_set>
#include <utility>

#include "core/base/error.hpp"
#include "core/cache/append.hpp"
#include "core/cache/evict.hpp"
#include "core/cache/prefill.hpp"

namespace kvlab {
namespace {

Role make_role(const std::optional<MethodSpec>& spec, const LayerShape& shape, std::uint32_t role) {
  const std::uint64_t channels = role == KVLAB_ROLE_KEYS ? shape.head_dim_keys : shape.head_dim_values;
  Role made{std::nullopt, shape.dtype, channels};
  if (spec) made.codec.emplace(*spec, shape.describe(role));
  return made;
}

// Memory that is larger than caches is written past them.
constexpr std::uint64_t beyond_caches = std::uint64_t{64} << 20;
constexpr std::uint64_t most_tokens = std::uint64_t{1} << 31;

}  // namespace

LayerCache::LayerCache(const Pipeline& pipeline, const LayerShape& shape, std::shared_ptr<CacheMemory> memory,
                       bool decodes)
    : shape_((shape.check(), shape)),
      pipeline_(pipeline),
      keys_(make_role(pipeline.keys, shape, KVLAB_ROLE_KEYS)),
      values_(make_role(pipeline.values, shape, KVLAB_ROLE_VALUES)),
      memory_(std::move(memory)),
      decodes_(decodes),
      sequences_(shape.batch, empty()) {
  for (const auto& step : pipeline.select) selectors_.emplace_back(step.selector, shape.describe(KVLAB_ROLE_BOTH));
}

// ---- sequences -----------------------------------------------------------------------------------------------------

const LayerCache::Sequence& LayerCache::at(std::uint64_t sequence) const {
  if (sequence >= sequences_.size() || !sequences_[sequence].live) {
    throw InputError("there is no sequence " + std::to_string(sequence) + "; there are " +
                     std::to_string(sequences_.size()) + " slots");
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

void LayerCache::clear(std::uint64_t sequence) { at(sequence) = empty(); }

void LayerCache::remove(std::uint64_t sequence) {
  at(sequence) = empty();
  sequences_[sequence].live = false;
}

// ---- tokens --------------------------------------------------------------------------------------------------------

void LayerCache::prefill(const Prefill& input, ThreadPool& pool) {
  sequences_.assign(shape_.batch, empty());
  fill(0, shape_.batch, input, pool);
}

void LayerCache::prefill(std::uint64_t sequence, const Prefill& input, ThreadPool& pool) {
  at(sequence) = empty();
  fill(sequence, 1, input, pool);
}

void LayerCache::fill(std::uint64_t first, std::uint64_t count, const Prefill& input, ThreadPool& pool) {
  if (input.tokens > most_tokens) throw InputError("tokens is " + std::to_string(input.tokens) + "; valid: 0 .. 2^31");
  CacheMemory& memory = *memory_;
  memory.workspaces.resize(std::max(memory.workspaces.size(), pool.threads()));
  const std::uint64_t capacity = count * shape_.kv_heads * head_capacity(pipeline_, keys_, values_, input.tokens);
  memory.arena.prepare(capacity);
  try {
    pool.parallel_for(count * shape_.kv_heads, [&](std::size_t index, std::size_t thread) {
      const std::uint64_t sequence = index / shape_.kv_heads;
      const auto kv_head = static_cast<std::uint32_t>(index % shape_.kv_heads);
      HeadPrefill head(pipeline_, selectors_, shape_, input, memory.arena, memory.workspaces[thread], sequence, kv_head,
                       {capacity >= beyond_caches, decodes_});
      head.run(keys_, values_, sequences_[first + sequence].heads[kv_head]);
    });
  } catch (...) {
    for (std::uint64_t i = 0; i < count; ++i) sequences_[first + i] = empty();
    throw;
  }
  for (std::uint64_t i = 0; i < count; ++i) sequences_[first + i].tokens = input.tokens;
}

void LayerCache::check_append(std::span<const std::uint32_t> sequences, std::uint64_t tokens) const {
  if (!selectors_.empty() && !decodes_) {
    throw MethodError(KVLAB_UNSUPPORTED, "this cache was not made to decode: it kept no scores to evict by");
  }
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (std::find(sequences.begin(), sequences.begin() + static_cast<std::ptrdiff_t>(i), sequences[i]) !=
        sequences.begin() + static_cast<std::ptrdiff_t>(i)) {
      throw InputError("sequence " + std::to_string(sequences[i]) + " is named twice");
    }
    if (at(sequences[i]).tokens + tokens > most_tokens) {
      throw InputError("sequence " + std::to_string(sequences[i]) + " would have more than 2^31 tokens");
    }
  }
}

void LayerCache::append(std::span<const std::uint32_t> sequences, std::uint64_t tokens, const KvTensor& keys,
                        const KvTensor& values, ThreadPool& pool) {
  check_append(sequences, tokens);
  if (tokens == 0) return;
  CacheMemory& memory = *memory_;
  std::uint64_t needed = 0;
  for (const std::uint32_t sequence : sequences) {
    for (const Head& head : at(sequence).heads) {
      needed += append_capacity(pipeline_, keys_, values_, head, tokens);
      if (!selectors_.empty()) needed += eviction_capacity(keys_, values_, head);
    }
  }
  memory.arena.check(needed + needed / 4);  // a piece may be a quarter larger than was asked for
  memory.workspaces.resize(std::max(memory.workspaces.size(), pool.threads()));
  const auto step = static_cast<std::int64_t>(size_of(shape_.dtype));
  try {
    pool.parallel_for(sequences.size() * shape_.kv_heads, [&](std::size_t index, std::size_t thread) {
      const std::uint64_t i = index / shape_.kv_heads;
      const auto kv_head = static_cast<std::uint32_t>(index % shape_.kv_heads);
      Sequence& sequence = sequences_[sequences[i]];
      Workspace& workspace = memory.workspaces[thread];
      Head& head = sequence.heads[kv_head];
      const NewTokens rows{{keys.head(i, kv_head, shape_.dtype), keys.token_stride * step},
                           {values.head(i, kv_head, shape_.dtype), values.token_stride * step},
                           static_cast<std::uint32_t>(sequence.tokens),
                           tokens};
      HeadAppend append(pipeline_, memory.arena, workspace, kv_head);
      append.score(selectors_, shape_, sequences[i], rows, head);
      append.run(keys_, values_, rows, head);
      HeadEvict(pipeline_, selectors_, shape_, keys_, values_, memory.arena, workspace, sequences[i], kv_head)
          .run(sequence.tokens + tokens, head);
    });
  } catch (...) {
    for (const std::uint32_t sequence : sequences) sequences_[sequence] = empty();
    throw;
  }
  for (const std::uint32_t sequence : sequences) sequences_[sequence].tokens += tokens;
}

void LayerCache::decode(const Role& role, const Head& head, std::uint32_t kv_head, const Segment& segment,
                        std::uint64_t first, std::uint64_t count, float* rows, Workspace& workspace) {
  if (!segment.encoded) {
    const std::byte* data = segment.data + (first - segment.first) * role.row_bytes();
    to_f32(role.dtype, data, rows, count * role.channels);
    return;
  }
  const kvlab_block block = block_of(head, kv_head, segment, workspace.positions);
  void* scratch = workspace.codec_scratch.ensure<std::byte>(role.codec->traits().decode_scratch);
  role.codec->decode(block, first - segment.first, count, rows, role.channels, scratch);
}

// ---- memory --------------------------------------------------------------------------------------------------------

// Pieces that several sequences share are counted once.
Bytes LayerCache::bytes() const {
  Bytes sum;
  std::unordered_set<const Piece*> shared;
  const auto first_time = [&](const std::shared_ptr<Piece>& piece) {
    return piece.use_count() == 1 || shared.insert(piece.get()).second;
  };
  for (const auto& sequence : sequences_) {
    for (const auto& head : sequence.heads) {
      const auto& positions = head.positions.piece();
      if (positions != nullptr && first_time(positions)) sum.indices += positions->used();
      for (const auto& scores : head.scores) {
        if (scores.piece() != nullptr && first_time(scores.piece())) sum.indices += scores.piece()->used();
      }
      for (const auto* segments : {&head.keys, &head.values}) {
        for (const auto& segment : *segments) {
          if (first_time(segment.piece)) sum += segment.bytes;
        }
      }
    }
  }
  return sum;
}

std::uint64_t tile_tokens(const Role& role, const Segment& segment) {
  constexpr std::uint64_t rows_in_cache = 64;  // x 128 channels x 4 B = 32 KiB
  if (!segment.encoded) return 2 * rows_in_cache;
  const kvlab_codec_traits& traits = role.codec->traits();
  if (traits.whole_blocks != 0) return segment.tokens;
  return (rows_in_cache + traits.decode_granule - 1) / traits.decode_granule * traits.decode_granule;
}

kvlab_block block_of(const Head& head, std::uint32_t kv_head, const Segment& segment,
                     std::vector<std::uint32_t>& scratch) {
  const auto range = head.positions.range(segment.first, segment.tokens, scratch);
  kvlab_block block{};
  block.struct_size = sizeof block;
  block.heads = 1;
  block.bytes = reinterpret_cast<const std::uint8_t*>(segment.data);
  block.size = segment.size;
  block.tokens = segment.tokens;
  block.positions = range.list;
  block.first_position = range.first;
  block.kv_head = kv_head;
  return block;
}

}  // namespace kvlab
