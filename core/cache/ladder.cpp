// LayerCache: which rung of a ladder a sequence is on.
#include <algorithm>
#include <string>

#include "core/base/error.hpp"
#include "core/cache/layer_cache.hpp"

namespace kvlab {
namespace {

std::uint64_t encoded_bytes(const std::vector<Segment>& segments) {
  std::uint64_t bytes = 0;
  for (const auto& segment : segments) bytes += segment.encoded ? segment.size : 0;
  return bytes;
}

// Bytes of one role of a head with this many slots, `cut` of them sinks and blocks up to now, were all blocks of that
// rung and whole; those up to now at least `held`. Cutting goes on until the tail is left.
std::uint64_t role_bytes_on(const Pipeline& pipeline, const Role& role, std::uint8_t rung, std::uint64_t cut,
                            std::uint64_t slots, std::uint64_t held = 0) {
  if (!role.coded()) return slots * role.row_bytes();
  const CodecInstance& codec = role.codecs[rung];
  const std::uint64_t block = role.block_tokens[rung];
  const std::uint64_t sinks = std::min(pipeline.sinks, slots);
  cut = std::max(cut, sinks);
  const auto blocks = [&](std::uint64_t tokens) { return tokens / block * (tokens >= block ? codec.bound(block) : 0); };
  const std::uint64_t coded = cut - sinks;
  const std::uint64_t rest = coded % block > 0 ? codec.bound(coded % block) : 0;
  const std::uint64_t more = slots > cut + pipeline.tail ? (slots - cut - pipeline.tail) / block * block : 0;
  return std::max(blocks(coded) + rest, held) + blocks(more) + (sinks + slots - cut - more) * role.row_bytes();
}

}  // namespace

// By bytes: the first rung on which all fits. `on`: what a head takes on a rung.
std::uint8_t LayerCache::first_that_fits(std::uint8_t from, const std::string& what,
                                         const std::function<std::uint64_t(std::uint8_t)>& bytes_on) const {
  const auto last = static_cast<std::uint8_t>(layer_.rules.front().above.size() - 1);
  for (std::uint8_t rung = from; rung <= last; ++rung) {
    if (bytes_on(rung) <= layer_.pipeline.bytes_per_sequence) return rung;
  }
  throw BudgetError(what + " would take up to " + std::to_string(bytes_on(last)) + " bytes of layer " +
                    std::to_string(layer_.shape.layer) + (last > 0 ? " with the last codec of the ladder" : "") +
                    "; the layer's share of " + "bytes_per_sequence is " +
                    std::to_string(layer_.pipeline.bytes_per_sequence));
}

std::uint8_t LayerCache::prefill_rung(std::uint64_t tokens) const {
  if (layer_.pipeline.bytes_per_sequence == 0) return layer_.rules.front().at(tokens);
  const std::uint64_t kept = layer_.pipeline.kept_of(tokens);
  const std::uint64_t cut = kept - std::min(kept, layer_.pipeline.tail);
  std::uint64_t positions = kept == tokens ? 0 : kept * sizeof(std::uint32_t);
  if (layer_.decodes) {
    const auto keepers =
        std::count_if(layer_.selectors.begin(), layer_.selectors.end(), [](const auto& s) { return s.keeps_scores(); });
    positions += kept * sizeof(float) * static_cast<std::uint64_t>(keepers);
  }
  return first_that_fits(0, "a prefill of " + std::to_string(tokens) + " tokens", [&](std::uint8_t rung) {
    return layer_.shape.kv_heads * (positions + role_bytes_on(layer_.pipeline, layer_.keys, rung, cut, kept) +
                                    role_bytes_on(layer_.pipeline, layer_.values, rung, cut, kept));
  });
}

// A rung is left a block before it is full, so that there is time to recode; the last one only when it is.
std::uint8_t LayerCache::append_rung(std::uint64_t id, std::uint64_t tokens) const {
  const Sequence& sequence = at(id);
  if (layer_.pipeline.bytes_per_sequence == 0) return layer_.rules.front().at(sequence.tokens + tokens);
  const std::uint8_t last = static_cast<std::uint8_t>(layer_.rules.front().above.size() - 1);
  return first_that_fits(sequence.rung, "sequence " + std::to_string(id), [&](std::uint8_t rung) {
    std::uint64_t more = tokens;
    if (rung < last) {
      for (const Role* role : {&layer_.keys, &layer_.values})
        more = std::max(more, tokens + (role->coded() ? role->block_tokens[rung] : 0));
    }
    std::uint64_t bytes = 0;
    for (const Head& head : sequence.heads) {
      const std::uint64_t slots = head.positions.tokens() + more;
      if (head.positions.piece() != nullptr) bytes += head.positions.piece()->used() + more * sizeof(std::uint32_t);
      for (const auto& scores : head.scores) bytes += (scores.size() + more) * sizeof(float);
      // Eviction leaves blocks that are not whole: on the rung that it is on a head has what it has.
      const bool is_on = rung == sequence.rung && !head.stale;
      bytes += role_bytes_on(layer_.pipeline, layer_.keys, rung, head.keys.cut, slots,
                             is_on ? encoded_bytes(head.keys.segments) : 0) +
               role_bytes_on(layer_.pipeline, layer_.values, rung, head.values.cut, slots,
                             is_on ? encoded_bytes(head.values.segments) : 0);
    }
    return bytes;
  });
}

bool LayerCache::recodes(const Sequence& sequence, std::uint8_t rung) const {
  return recode_floor(layer_.pipeline, rung) > recode_floor(layer_.pipeline, sequence.rung);
}

// What was to be recoded to an earlier rung is, before it is to another one: which blocks there will be must not depend
// on how far a thread came.
void LayerCache::finish_before(std::span<const std::uint32_t> sequences, std::span<const std::uint8_t> rungs) {
  std::vector<std::uint32_t> climbing;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (recodes(sequences_[sequences[i]], rungs[i])) climbing.push_back(sequences[i]);
  }
  finish(climbing);
}

void LayerCache::climb(Sequence& sequence, std::uint8_t rung) const {
  const bool to_recode = recodes(sequence, rung);
  sequence.rung = rung;
  if (!to_recode) return;
  for (Head& head : sequence.heads) head.stale = true;
}

}  // namespace kvlab
