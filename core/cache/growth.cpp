// LayerCache: tokens that come one after another.
#include <algorithm>
#include <exception>
#include <numeric>
#include <string>
#include <utility>

#include "core/base/error.hpp"
#include "core/cache/evict.hpp"
#include "core/cache/input.hpp"
#include "core/cache/layer_cache.hpp"

namespace kvlab {
namespace {

bool unfinished(const Head& head) { return head.stale || !head.encodings.empty(); }

bool failed(const Head& head) {
  return std::any_of(head.encodings.begin(), head.encodings.end(), [](const auto& e) { return e->failed(); });
}

}  // namespace

void LayerCache::check_append(std::span<const std::uint32_t> sequences, std::uint64_t tokens) const {
  if (!layer_.selectors.empty() && !layer_.decodes) {
    throw InputError(of_layer(layer_.shape.layer) +
                     "this cache was made for prefills alone, and keeps no scores to evict by; " +
                     "valid: a cache made with CacheOptions{.decodes = true}");
  }
  if (sequences.empty()) throw InputError(of_layer(layer_.shape.layer) + "append names no sequence; valid: from 1");
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (std::find(sequences.begin(), sequences.begin() + static_cast<std::ptrdiff_t>(i), sequences[i]) !=
        sequences.begin() + static_cast<std::ptrdiff_t>(i)) {
      throw InputError(of_layer(layer_.shape.layer) + "sequence " + std::to_string(sequences[i]) +
                       " is named twice; valid: once per append");
    }
    if (tokens > most_tokens - at(sequences[i]).tokens) {
      throw InputError(of_layer(layer_.shape.layer) + "sequence " + std::to_string(sequences[i]) +
                       " would have more than 2^31 tokens");
    }
  }
}

// Before anything is changed: one more read of rows that are copied next.
void LayerCache::check_new(std::span<const std::uint32_t> sequences, const KvTensor& keys, const KvTensor& values) {
  const LayerShape& shape = layer_.shape;
  Work& work = memory_->tables.work;
  work.clear();
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      for (const std::uint32_t which : both_roles) {
        const KvTensor& tensor = which == KVLAB_ROLE_KEYS ? keys : values;
        work.checks.push_back({{&shape, which, i, head}, tensor.head(i, head), tensor.tokens});
      }
    }
  }
  run(work);
}

void LayerCache::append(std::span<const std::uint32_t> sequences, const KvTensor& keys, const KvTensor& values) {
  const std::uint64_t tokens = keys.tokens;
  check_append(sequences, tokens);
  check_tensors(layer_.shape, keys, values, sequences.size());
  if (tokens == 0) return;
  check_new(sequences, keys, values);
  try {
    for (const std::uint32_t id : sequences) {
      for (Head& head : sequences_[id].heads) install(head);
    }
  } catch (...) {
    empty_all(sequences);
    throw;
  }
  std::vector<std::uint8_t> rungs;
  for (const std::uint32_t id : sequences) rungs.push_back(append_rung(id, tokens));
  try {
    finish_before(sequences, rungs);
  } catch (const BudgetError&) {
    throw;
  } catch (...) {
    empty_all(sequences);
    throw;
  }
  const std::vector<HeadCall> calls = this->calls(sequences, tokens, rungs);
  Promise promise = memory_->arena.promise(plan_growth(calls, tokens, memory_->tables.growth));
  for (std::size_t i = 0; i < sequences.size(); ++i) climb(sequences_[sequences[i]], rungs[i]);
  std::vector<NewTokens>& rows = memory_->tables.new_tokens;
  rows.clear();
  for (const HeadCall& call : calls) {
    const std::size_t i = rows.size() / layer_.shape.kv_heads;
    rows.push_back({keys.head(i, call.kv_head), values.head(i, call.kv_head),
                    static_cast<std::uint32_t>(call.total - tokens), tokens});
  }
  try {
    grow(calls, rows, promise);
    evict(calls, memory_->arena, promise, memory_->backend);
    promise = Promise();
    for (const std::uint32_t id : sequences) sequences_[id].tokens += tokens;
    recode(sequences);
    hold_budgets(sequences);
  } catch (...) {
    empty_all(sequences);
    throw;
  }
}

void LayerCache::empty_all(std::span<const std::uint32_t> sequences) {
  for (auto& growth : memory_->tables.growth) growth.release();
  for (const std::uint32_t id : sequences) sequences_[id] = empty();
}

void LayerCache::run(Work& work) {
  Work* one = &work;
  memory_->backend.run(std::span(&one, 1), memory_->arena);
  memory_->backend.synchronize();
}

std::vector<HeadCall> LayerCache::calls(std::span<const std::uint32_t> sequences, std::uint64_t more,
                                        std::span<const std::uint8_t> rungs) {
  std::vector<HeadCall> calls;
  calls.reserve(sequences.size() * layer_.shape.kv_heads);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    Sequence& sequence = sequences_[sequences[i]];
    const RungRule& rule = layer_.rules[rungs.empty() ? sequence.rung : rungs[i]];
    for (std::uint32_t head = 0; head < layer_.shape.kv_heads; ++head) {
      calls.push_back({layer_, rule, sequences[i], head, sequence.tokens + more, sequence.heads[head]});
    }
  }
  return calls;
}

// Returns what it may take of the arena.
std::uint64_t LayerCache::plan_growth(std::span<const HeadCall> calls, std::uint64_t tokens,
                                      std::vector<HeadGrowth>& plans) const {
  plans.resize(std::max(plans.size(), calls.size()));
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const HeadCall& call = calls[i];
    plans[i].plan(call, tokens);
    bytes += plans[i].bytes;
    if (layer_.selectors.empty()) continue;
    if (is_above_budget(layer_, call.head.kept() + tokens, call.total - call.head.unobserved)) {
      bytes += eviction_bytes(call, call.head.positions.tokens() + tokens);
    }
  }
  return bytes;
}

std::uint64_t LayerCache::append_bytes(std::span<const std::uint32_t> sequences, std::uint64_t tokens) const {
  auto& self = const_cast<LayerCache&>(*this);  // calls() is for those that change heads, too
  check_append(sequences, tokens);
  std::vector<std::uint8_t> rungs;
  for (const std::uint32_t id : sequences) rungs.push_back(append_rung(id, tokens));
  std::vector<HeadGrowth> plans;
  return plan_growth(self.calls(sequences, tokens, rungs), tokens, plans);
}

void LayerCache::grow(std::span<const HeadCall> calls, std::span<const NewTokens> rows, Promise& promise) {
  Work& work = memory_->tables.work;
  std::vector<HeadGrowth>& growth = memory_->tables.growth;
  work.clear();
  for (std::size_t i = 0; i < calls.size(); ++i) growth[i].grow(calls[i], rows[i], memory_->arena, promise, work);
  run(work);
  work.clear();
  Encoder encoder(memory_->arena, memory_->backend, layer_.pipeline.async);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    growth[i].release();
    encoder.start_due(calls[i], layer_.keys, growth[i].keys.layout(), promise);
    encoder.start_due(calls[i], layer_.values, growth[i].values.layout(), promise);
  }
  encoder.finish();
}

// A few stale blocks of each head, after all of them have grown: growing was promised the memory first.
void LayerCache::recode(std::span<const std::uint32_t> sequences) {
  const auto stale = those_with(sequences, [](const Head& head) { return head.stale; });
  if (stale.empty()) return;
  Encoder encoder(memory_->arena, memory_->backend, layer_.pipeline.async);
  for (const HeadCall& call : calls(stale, 0)) {
    if (!call.head.stale) continue;
    try {
      encoder.start_stale(call);
    } catch (const BudgetError&) {
      call.head.stale = true;  // the next append tries again
    }
  }
  encoder.finish();
}

// A sequence that is above its budget, or may be once its encodings are done, cannot wait for them; one that is above
// with all of them in place, as it would be without a background thread, is recoded at once.
void LayerCache::hold_budgets(std::span<const std::uint32_t> sequences) {
  if (layer_.pipeline.bytes_per_sequence == 0) return;
  auto above = those_with(sequences, unfinished);
  const auto drop_those_below = [&] {
    std::erase_if(above, [&](std::uint32_t id) { return bytes_of(id) <= layer_.pipeline.bytes_per_sequence; });
  };
  drop_those_below();
  if (above.empty()) return;
  {
    Encoder encoder(memory_->arena, memory_->backend, false);
    for (const HeadCall& call : calls(above, 0)) encoder.settle(call.head);
    encoder.finish();
  }
  drop_those_below();
  try {
    finish(above);
  } catch (const BudgetError&) {
    return;  // old and new blocks side by side are too much: the next append tries again
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

void LayerCache::flush() {
  std::vector<std::uint32_t> all(sequences_.size());
  std::iota(all.begin(), all.end(), 0U);
  finish(those_with(all, unfinished));
  memory_->backend.quiesce();  // it may be at a block of a sequence that is gone, and hold its memory
}

// All that is under way of these, and all that is stale. BudgetError where the budget is too small for that: what was
// done stays.
void LayerCache::finish(std::span<const std::uint32_t> sequences) {
  if (sequences.empty()) return;
  try {
    finish_unsafely(sequences);
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

void LayerCache::finish_unsafely(std::span<const std::uint32_t> sequences) {
  const std::vector<HeadCall> calls = this->calls(sequences, 0);
  Encoder encoder(memory_->arena, memory_->backend, false);
  for (const HeadCall& call : calls) encoder.settle(call.head);
  encoder.finish();
  while (std::any_of(calls.begin(), calls.end(), [](const HeadCall& call) { return call.head.stale; })) {
    std::exception_ptr full;
    for (const HeadCall& call : calls) {
      if (!call.head.stale) continue;
      try {
        encoder.start_stale(call);
      } catch (const BudgetError&) {
        full = std::current_exception();
        break;
      }
    }
    encoder.finish();
    if (full) std::rethrow_exception(full);
  }
}

}  // namespace kvlab
