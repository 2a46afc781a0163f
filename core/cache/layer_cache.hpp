// The compressed KV cache of one layer, for a batch of sequences.
//
// prefill() runs the pipeline on every (sequence, KV head) pair: selectors drop tokens, and what is left between sinks
// and tail is encoded in blocks. append() adds tokens behind: they stay raw until a whole block of them lies before the
// tail, and then that block is encoded; what was encoded before is not touched. Sequences may differ in length, and
// heads in the tokens that they keep. attend() and decompress() read what bytes() counts and nothing else: there is no
// copy of the original.
//
// Sequences have numbers, from 0; at first there are shape.batch empty ones. A fork shares the memory of its origin
// until one of the two writes into it; what is shared is counted once.
//
// Eviction: in a cache made with `decodes`, heads above the pipeline's token budgets evict as tokens come, and the
// scores that a selector gave to each token by its own rows are kept for that and counted (evict.hpp).
// Ladder: which codec a block gets depends on the sequence's length, or bytes (core/pipeline/ladder.hpp).
// Async: append() leaves blocks to the backend's background thread and goes on with the raw rows; a later append() to
// the sequence, or flush(), puts the blocks in their place. After flush() the cache is what it would be without, to the
// bit.
//
// Threads: one call at a time on an object, and on all objects that share its memory; const calls too. No lock is held
// between calls. Each call spreads its heads over the backend's threads and returns when all is done.
//
// Errors, and what is left after them:
//   InputError        the caller's: a shape, a sequence, a tensor, strides, positions, numbers that are not finite.
//                     All is as before the call. One exception: a prefill's keys and values are looked at as they are
//                     read, so after a number that is not finite among them the call's sequences are empty. Tokens that
//                     are dropped unread are not looked at.
//   BudgetError       the arena's budget or a sequence's bytes are used up. After append() all is as before the call;
//                     after prefill() its sequences are empty.
//   MethodError, std::bad_alloc
//                     a method failed. After append() and prefill() the call's sequences are empty; after flush() those
//                     whose block failed.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/backend/backend.hpp"
#include "core/cache/append.hpp"
#include "core/cache/layer.hpp"

namespace kvlab {

// What a call describes its work in, used again by the next one. Shared by all layers: between two calls of one layer
// attention reads more than caches hold, and tables of each layer's own would come from memory.
struct CallTables {
  Work work;
  std::vector<HeadGrowth> growth;
  std::vector<NewTokens> new_tokens;
  std::vector<AttendTask> attend;
};

// What the layers of a model share: the backend, its memory, and the tables of the call that is under way.
struct CacheMemory {
  explicit CacheMemory(Backend& backend_, std::uint64_t budget = Arena::no_budget)
      : backend(backend_), arena(backend_.memory(), budget) {}

  Backend& backend;  // outlives this
  Arena arena;
  CallTables tables;
};

class LayerCache {
 public:
  LayerCache(const Pipeline& pipeline, const LayerShape& shape, std::shared_ptr<CacheMemory> memory,
             bool decodes = false);
  ~LayerCache();
  LayerCache(const LayerCache&) = delete;
  LayerCache& operator=(const LayerCache&) = delete;

  [[nodiscard]] const LayerShape& shape() const { return layer_.shape; }
  [[nodiscard]] std::uint64_t sequences() const { return sequences_.size(); }
  [[nodiscard]] std::uint64_t tokens(std::uint64_t sequence) const { return at(sequence).tokens; }  // that it was given

  // ---- sequences ---------------------------------------------------------------------------------------------------

  std::uint32_t add();                         // an empty one; a removed one's number is used first
  std::uint32_t fork(std::uint64_t sequence);  // a new one with the same tokens
  void clear(std::uint64_t sequence);          // empties it
  void remove(std::uint64_t sequence);         // its number is free

  // ---- tokens ------------------------------------------------------------------------------------------------------

  // Replaces what all sequences held, one of the input's each: there are shape.batch. A second prefill of the same size
  // finds its memory warm.
  void prefill(const Prefill& input);
  // Of one sequence: the input has one.
  void prefill(std::uint64_t sequence, const Prefill& input);
  // More tokens for each of these sequences, as many for each, at the positions after its last; tensor sequence i is of
  // sequences[i]. There is at least one sequence, none is named twice. A cache with selectors evicts by them:
  // InputError unless it was made with `decodes`.
  void append(std::span<const std::uint32_t> sequences, const KvTensor& keys, const KvTensor& values);
  // Finishes what append() left: blocks that wait for the background thread, and those to be recoded.
  void flush();

  // o = softmax(scale q k̂) v̂ over the kept tokens at positions <= the query's, in a layer with window W over those
  // > p - W, by online softmax, all query heads of a KV head in one pass. out: f32 [sequence, query_head, query,
  // head_dim_values], host memory; 0 where nothing is left. There is at least one sequence and one query, positions are
  // below 2^31. Sequence i of the queries is of sequences[i]; without such a list, of the i-th that there is.
  void attend(std::span<const std::uint32_t> sequences, const QueryTensor& queries, float* out);
  void attend(const QueryTensor& queries, float* out);

  // All sequences in the workload's dtype at their positions, [sequence, kv_head, token, channel] contiguous with as
  // many tokens each as the longest has; dropped and missing ones 0.
  void decompress(void* keys, void* values);

  // ---- memory ------------------------------------------------------------------------------------------------------

  // Without the codecs' own state: CacheManager adds it. Blocks that the background thread made count once they are
  // made, beside the raw rows until they are in their place.
  [[nodiscard]] Bytes bytes() const;
  [[nodiscard]] std::uint64_t bytes_of(
      std::uint64_t sequence) const;  // shared pieces in full, blocks under way by bound
  [[nodiscard]] std::uint64_t requested_bytes() const { return memory_->arena.requested(); }  // asked of the allocator
  [[nodiscard]] std::uint64_t reserved_bytes() const { return memory_->arena.reserved(); }    // held by it

  // What an append of so many tokens to each of these sequences may take of the budget before it gives any back,
  // padding included; what it takes is never more. It is less by what codecs leave of their bounds and, where heads
  // evict, by what of them stays as it is.
  [[nodiscard]] std::uint64_t append_bytes(std::span<const std::uint32_t> sequences, std::uint64_t tokens) const;

  // ---- for looking inside (rows.hpp reads rows) --------------------------------------------------------------------

  [[nodiscard]] const Layer& layer() const { return layer_; }
  [[nodiscard]] Backend& backend() const { return memory_->backend; }
  [[nodiscard]] const Head& head(std::uint64_t sequence, std::uint32_t kv_head) const;
  // Tokens that a head keeps.
  [[nodiscard]] std::uint64_t kept(std::uint64_t sequence, std::uint32_t kv_head) const {
    return head(sequence, kv_head).kept();
  }
  // Adds the kept tokens of one role (KVLAB_ROLE_KEYS, _VALUES) of a head: raw ones to [0], those in blocks of a rung
  // to [1 + rung].
  void count_rungs(std::uint64_t sequence, std::uint32_t kv_head, std::uint32_t which,
                   std::span<std::uint64_t> tokens) const;

 private:
  struct Sequence {
    std::uint64_t tokens = 0;
    bool live = true;
    std::uint8_t rung = 0;    // of the pipeline's ladder
    std::vector<Head> heads;  // a KV head
  };
  [[nodiscard]] const Sequence& at(std::uint64_t sequence) const;
  [[nodiscard]] Sequence& at(std::uint64_t sequence) {
    return const_cast<Sequence&>(std::as_const(*this).at(sequence));
  }
  [[nodiscard]] Sequence empty() const { return {0, true, 0, std::vector<Head>(layer_.shape.kv_heads)}; }
  [[nodiscard]] std::uint8_t check_prefill(std::uint64_t count, const Prefill& input) const;
  void fill(std::uint64_t first, std::uint64_t count, std::uint8_t rung, const Prefill& input);

  void check_append(std::span<const std::uint32_t> sequences, std::uint64_t tokens) const;
  void check_new(std::span<const std::uint32_t> sequences, const KvTensor& keys, const KvTensor& values);
  // `rungs`: that the sequences are to be on; empty: those that they are on.
  [[nodiscard]] std::vector<HeadCall> calls(std::span<const std::uint32_t> sequences, std::uint64_t more,
                                            std::span<const std::uint8_t> rungs = {});
  std::uint64_t plan_growth(std::span<const HeadCall> calls, std::uint64_t tokens,
                            std::vector<HeadGrowth>& plans) const;
  void grow(std::span<const HeadCall> calls, std::span<const NewTokens> rows, Promise& promise);
  void recode(std::span<const std::uint32_t> sequences);
  void hold_budgets(std::span<const std::uint32_t> sequences);
  void finish(std::span<const std::uint32_t> sequences);
  void finish_unsafely(std::span<const std::uint32_t> sequences);
  void run(Work& work);
  void empty_all(std::span<const std::uint32_t> sequences);
  [[nodiscard]] std::vector<std::uint32_t> those_with(std::span<const std::uint32_t> sequences,
                                                      bool (*has)(const Head&)) const;

  [[nodiscard]] std::uint8_t first_that_fits(std::uint8_t from, const std::string& what,
                                             const std::function<std::uint64_t(std::uint8_t)>& bytes_on) const;
  [[nodiscard]] std::uint8_t prefill_rung(std::uint64_t tokens) const;
  [[nodiscard]] std::uint8_t append_rung(std::uint64_t sequence, std::uint64_t tokens) const;
  [[nodiscard]] bool recodes(const Sequence& sequence, std::uint8_t rung) const;
  void finish_before(std::span<const std::uint32_t> sequences, std::span<const std::uint8_t> rungs);
  void climb(Sequence& sequence, std::uint8_t rung) const;

  Layer layer_;
  std::shared_ptr<CacheMemory> memory_;
  std::vector<Sequence> sequences_;  // after the memory that they are in
};

}  // namespace kvlab
