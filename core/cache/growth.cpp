// LayerCache: tokens that come one after another.
#include <algorithm>
#include <numeric>
#include <string>

#include "core/base/error.hpp"
#include "core/cache/append.hpp"
#include "core/cache/cache.hpp"
#include "core/cache/encoding.hpp"
#include "core/cache/evict.hpp"
#include "core/cache/input.hpp"

namespace kvlab {
namespace {

// Less to look at or to copy than it takes to wake a thread.
constexpr std::uint64_t few_rows = 64;

bool unfinished(const Head& head) { return head.stale || !head.encodings.empty(); }

std::uint64_t encoded_bytes(const std::vector<Segment>& segments) {
  std::uint64_t bytes = 0;
  for (const auto& segment : segments) bytes += segment.encoded ? segment.size : 0;
  return bytes;
}

bool failed(const Head& head) {
  return std::any_of(head.encodings.begin(), head.encodings.end(), [](const auto& e) { return e->failed(); });
}

}  // namespace

void LayerCache::check_append(std::span<const std::uint32_t> sequences, std::uint64_t tokens) const {
  if (!selectors_.empty() && !decodes_) {
    throw InputError(of_layer(shape_.layer) +
                     "this cache was made for prefills alone, and keeps no scores to evict by; " +
                     "valid: a cache made with CacheOptions{.decodes = true}");
  }
  if (sequences.empty()) throw InputError(of_layer(shape_.layer) + "append names no sequence; valid: from 1");
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (std::find(sequences.begin(), sequences.begin() + static_cast<std::ptrdiff_t>(i), sequences[i]) !=
        sequences.begin() + static_cast<std::ptrdiff_t>(i)) {
      throw InputError(of_layer(shape_.layer) + "sequence " + std::to_string(sequences[i]) +
                       " is named twice; valid: once per append");
    }
    if (tokens > most_tokens - at(sequences[i]).tokens) {
      throw InputError(of_layer(shape_.layer) + "sequence " + std::to_string(sequences[i]) +
                       " would have more than 2^31 tokens");
    }
  }
}

// Before anything is changed: one more read of rows that are copied next.
void LayerCache::check_new(std::span<const std::uint32_t> sequences, std::uint64_t tokens, const KvTensor& keys,
                           const KvTensor& values, ThreadPool& pool) const {
  check_tensor(shape_, KVLAB_ROLE_KEYS, keys, sequences.size(), tokens);
  check_tensor(shape_, KVLAB_ROLE_VALUES, values, sequences.size(), tokens);
  const auto step = static_cast<std::int64_t>(size_of(shape_.dtype));
  const auto check_head = [&](std::size_t index, std::size_t /*thread*/) {
    const std::uint64_t i = index / shape_.kv_heads;
    const auto kv_head = static_cast<std::uint32_t>(index % shape_.kv_heads);
    const auto check = [&](std::uint32_t role, const KvTensor& tensor) {
      const TokenRows rows{tensor.head(i, kv_head, shape_.dtype), tensor.token_stride * step};
      check_rows(shape_, role, rows, i, kv_head, tokens);
    };
    check(KVLAB_ROLE_KEYS, keys);
    check(KVLAB_ROLE_VALUES, values);
  };
  const std::size_t heads = sequences.size() * shape_.kv_heads;
  if (heads * tokens <= few_rows) {
    for (std::size_t index = 0; index < heads; ++index) check_head(index, 0);
  } else {
    pool.parallel_for(heads, check_head);
  }
}

void LayerCache::append(std::span<const std::uint32_t> sequences, std::uint64_t tokens, const KvTensor& keys,
                        const KvTensor& values, ThreadPool& pool) {
  check_append(sequences, tokens);
  if (tokens == 0) return;
  check_new(sequences, tokens, keys, values, pool);
  memory_->workspaces.resize(std::max(memory_->workspaces.size(), pool.threads()));
  std::vector<std::uint8_t> rungs;
  for (const std::uint32_t id : sequences) rungs.push_back(append_rung(id, tokens));
  try {
    finish_before(sequences, rungs, pool);
  } catch (const BudgetError&) {
    throw;
  } catch (...) {
    for (const std::uint32_t sequence : sequences) sequences_[sequence] = empty();
    throw;
  }
  check_budget(sequences, rungs, tokens);
  for (std::size_t i = 0; i < sequences.size(); ++i) climb(sequences_[sequences[i]], rungs[i]);
  try {
    grow(sequences, tokens, keys, values, pool);
    recode(sequences, pool);
    hold_budgets(sequences, pool);
  } catch (...) {
    for (const std::uint32_t sequence : sequences) sequences_[sequence] = empty();
    throw;
  }
}

// Throws BudgetError where what is appended may not fit.
void LayerCache::check_budget(std::span<const std::uint32_t> sequences, std::span<const std::uint8_t> rungs,
                              std::uint64_t tokens) const {
  std::uint64_t needed = 0;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& sequence = at(sequences[i]);
    const RungRule rule = rule_on(rungs[i]);
    for (const Head& head : sequence.heads) {
      needed += append_capacity(pipeline_, rule, keys_, values_, head, sequence.tokens, tokens);
      if (!selectors_.empty()) needed += eviction_capacity(keys_, values_, head);
    }
  }
  memory_->arena.check(needed + needed / 4);  // a piece may be a quarter larger than was asked for
}

// A few rows to copy and no block to encode: less than it takes to wake a thread.
bool LayerCache::is_small(std::span<const std::uint32_t> sequences, std::uint64_t tokens) const {
  if (sequences.size() * shape_.kv_heads * tokens > few_rows) return false;
  return std::none_of(sequences.begin(), sequences.end(), [&](std::uint32_t id) {
    const Sequence& sequence = at(id);
    const Head& head = sequence.heads.front();  // the others are cut much the same
    const std::uint64_t slots = head.positions.tokens() + tokens;
    const std::uint64_t gone = sequence.tokens + tokens - slots;
    const auto cuts = [&](const Role& role, std::uint64_t cut) {
      cut = std::max(cut, pipeline_.sinks);
      return role.coded() && next_block(rule_on(sequence.rung), role, cut, pipeline_.tail, slots, gone);
    };
    return cuts(keys_, head.key_cut) || cuts(values_, head.value_cut);
  });
}

void LayerCache::grow(std::span<const std::uint32_t> sequences, std::uint64_t tokens, const KvTensor& keys,
                      const KvTensor& values, ThreadPool& pool) {
  CacheMemory& memory = *memory_;
  const auto step = static_cast<std::int64_t>(size_of(shape_.dtype));
  const auto grow_head = [&](std::size_t index, std::size_t thread) {
    const std::uint64_t i = index / shape_.kv_heads;
    const auto kv_head = static_cast<std::uint32_t>(index % shape_.kv_heads);
    Sequence& sequence = sequences_[sequences[i]];
    Workspace& workspace = memory.workspaces[thread];
    Head& head = sequence.heads[kv_head];
    const NewTokens rows{{keys.head(i, kv_head, shape_.dtype), keys.token_stride * step},
                         {values.head(i, kv_head, shape_.dtype), values.token_stride * step},
                         static_cast<std::uint32_t>(sequence.tokens),
                         tokens};
    const RungRule rule = rule_on(sequence.rung);
    HeadAppend append(pipeline_, rule, keys_, values_, memory.arena, pipeline_.async ? &memory.background : nullptr,
                      workspace, kv_head);
    append.score(selectors_, shape_, sequences[i], rows, head);
    append.run(rows, head);
    HeadEvict(pipeline_, rule, selectors_, shape_, keys_, values_, memory.arena, workspace, sequences[i], kv_head)
        .run(sequence.tokens + tokens, head);
  };
  const std::size_t heads = sequences.size() * shape_.kv_heads;
  if (is_small(sequences, tokens)) {
    for (std::size_t index = 0; index < heads; ++index) grow_head(index, 0);
  } else {
    pool.parallel_for(heads, grow_head);
  }
  for (const std::uint32_t sequence : sequences) sequences_[sequence].tokens += tokens;
}

void LayerCache::for_heads(std::span<const std::uint32_t> sequences, Background* background, ThreadPool& pool,
                           const std::function<void(HeadAppend&, Head&)>& body) {
  pool.parallel_for(sequences.size() * shape_.kv_heads, [&](std::size_t index, std::size_t thread) {
    Sequence& sequence = sequences_[sequences[index / shape_.kv_heads]];
    const auto kv_head = static_cast<std::uint32_t>(index % shape_.kv_heads);
    const RungRule rule = rule_on(sequence.rung);
    HeadAppend append(pipeline_, rule, keys_, values_, memory_->arena, background, memory_->workspaces[thread],
                      kv_head);
    body(append, sequence.heads[kv_head]);
  });
}

// A few stale blocks of each head, after all of them have grown: growing was promised the memory first.
void LayerCache::recode(std::span<const std::uint32_t> sequences, ThreadPool& pool) {
  const auto stale = those_with(sequences, [](const Head& head) { return head.stale; });
  if (stale.empty()) return;
  Background* background = pipeline_.async ? &memory_->background : nullptr;
  for_heads(stale, background, pool, [](HeadAppend& append, Head& head) {
    if (head.stale) append.recode(head);
  });
}

// A sequence that is above its budget, or may be once its encodings are done, cannot wait for them; one that is above
// with all of them in place, as it would be without a background thread, is recoded at once.
void LayerCache::hold_budgets(std::span<const std::uint32_t> sequences, ThreadPool& pool) {
  if (pipeline_.bytes_per_sequence == 0) return;
  auto above = those_with(sequences, unfinished);
  const auto drop_those_below = [&] {
    std::erase_if(above, [&](std::uint32_t id) { return bytes_of(id) <= pipeline_.bytes_per_sequence; });
  };
  drop_those_below();
  if (above.empty()) return;
  for_heads(above, nullptr, pool, [](HeadAppend& append, Head& head) { append.settle_all(head); });
  drop_those_below();
  try {
    finish(above, pool);
  } catch (const BudgetError&) {
    return;  // no room for old and new blocks side by side: the next append tries again
  }
}

std::vector<std::uint32_t> LayerCache::those_with(std::span<const std::uint32_t> sequences,
                                                  bool (*has)(const Head&)) const {
  std::vector<std::uint32_t> found;
  for (const std::uint32_t id : sequences) {
    const auto& heads = sequences_[id].heads;
    if (std::any_of(heads.begin(), heads.end(), has)) found.push_back(id);
  }
  return found;
}

void LayerCache::flush(ThreadPool& pool) {
  memory_->workspaces.resize(std::max(memory_->workspaces.size(), pool.threads()));
  std::vector<std::uint32_t> all(sequences_.size());
  std::iota(all.begin(), all.end(), 0U);
  finish(those_with(all, unfinished), pool);
  memory_->background.quiesce();  // it may be at a block of a sequence that is gone, and hold its memory
}

void LayerCache::finish(std::span<const std::uint32_t> sequences, ThreadPool& pool) {
  if (sequences.empty()) return;
  try {
    for_heads(sequences, nullptr, pool, [](HeadAppend& append, Head& head) { append.finish(head); });
  } catch (const BudgetError&) {
    throw;
  } catch (...) {
    for (const std::uint32_t id : sequences) {
      const auto& heads = sequences_[id].heads;
      if (std::any_of(heads.begin(), heads.end(), failed)) sequences_[id] = empty();
    }
    throw;
  }
}

// ---- the ladder ----------------------------------------------------------------------------------------------------

RungRule LayerCache::rule_on(std::uint8_t rung) const {
  RungRule rule = rule_;
  rule.least = recode_floor(pipeline_, rung);
  return rule;
}

// By bytes: the first rung on which all fits. `on`: what a head takes on a rung.
std::uint8_t LayerCache::first_that_fits(std::uint8_t from, const std::string& what,
                                         const std::function<std::uint64_t(std::uint8_t)>& bytes_on) const {
  const auto last = static_cast<std::uint8_t>(rule_.above.size() - 1);
  for (std::uint8_t rung = from; rung <= last; ++rung) {
    if (bytes_on(rung) <= pipeline_.bytes_per_sequence) return rung;
  }
  throw BudgetError(what + " would take up to " + std::to_string(bytes_on(last)) + " bytes of layer " +
                    std::to_string(shape_.layer) + (last > 0 ? " with the last codec of the ladder" : "") +
                    "; the layer's share of " + "bytes_per_sequence is " +
                    std::to_string(pipeline_.bytes_per_sequence));
}

std::uint8_t LayerCache::prefill_rung(std::uint64_t tokens) const {
  if (pipeline_.bytes_per_sequence == 0) return rule_.at(tokens);
  const std::uint64_t kept = pipeline_.kept_of(tokens);
  const std::uint64_t cut = kept - std::min(kept, pipeline_.tail);
  std::uint64_t positions = kept == tokens ? 0 : kept * sizeof(std::uint32_t);
  if (decodes_) {
    const auto keepers =
        std::count_if(selectors_.begin(), selectors_.end(), [](const auto& s) { return s.keeps_scores(); });
    positions += kept * sizeof(float) * static_cast<std::uint64_t>(keepers);
  }
  return first_that_fits(0, "a prefill of " + std::to_string(tokens) + " tokens", [&](std::uint8_t rung) {
    return shape_.kv_heads * (positions + role_bytes_on(pipeline_, keys_, rung, cut, kept) +
                              role_bytes_on(pipeline_, values_, rung, cut, kept));
  });
}

// A rung is left a block before it is full, so that there is time to recode; the last one only when it is.
std::uint8_t LayerCache::append_rung(std::uint64_t id, std::uint64_t tokens) const {
  const Sequence& sequence = at(id);
  if (pipeline_.bytes_per_sequence == 0) return rule_.at(sequence.tokens + tokens);
  const std::uint8_t last = static_cast<std::uint8_t>(rule_.above.size() - 1);
  return first_that_fits(sequence.rung, "sequence " + std::to_string(id), [&](std::uint8_t rung) {
    std::uint64_t more = tokens;
    if (rung < last) {
      for (const Role* role : {&keys_, &values_})
        more = std::max(more, tokens + (role->coded() ? role->block_tokens(rung) : 0));
    }
    std::uint64_t bytes = 0;
    for (const Head& head : sequence.heads) {
      const std::uint64_t slots = head.positions.tokens() + more;
      if (head.positions.piece() != nullptr) bytes += head.positions.piece()->used() + more * sizeof(std::uint32_t);
      for (const auto& scores : head.scores) bytes += (scores.size() + more) * sizeof(float);
      // Eviction leaves blocks that are not whole: on the rung that it is on a head has what it has.
      const bool is_on = rung == sequence.rung && !head.stale;
      bytes += role_bytes_on(pipeline_, keys_, rung, head.key_cut, slots, is_on ? encoded_bytes(head.keys) : 0) +
               role_bytes_on(pipeline_, values_, rung, head.value_cut, slots, is_on ? encoded_bytes(head.values) : 0);
    }
    return bytes;
  });
}

bool LayerCache::recodes(const Sequence& sequence, std::uint8_t rung) const {
  return recode_floor(pipeline_, rung) > recode_floor(pipeline_, sequence.rung);
}

// What was to be recoded to an earlier rung is, before it is to another one: which blocks there will be must not depend
// on how far a thread came.
void LayerCache::finish_before(std::span<const std::uint32_t> sequences, std::span<const std::uint8_t> rungs,
                               ThreadPool& pool) {
  std::vector<std::uint32_t> climbing;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (recodes(sequences_[sequences[i]], rungs[i])) climbing.push_back(sequences[i]);
  }
  finish(climbing, pool);
}

void LayerCache::climb(Sequence& sequence, std::uint8_t rung) const {
  const bool to_recode = recodes(sequence, rung);
  sequence.rung = rung;
  if (!to_recode) return;
  for (Head& head : sequence.heads) head.stale = true;
}

}  // namespace kvlab
