// Eviction while tokens come: each head stays within one block of its selectors' token budgets.
//
// A head evicts when it keeps a block more than the budgets allow of the tokens that it has seen. The selectors then
// run again, in order: on the scores that were kept with each token or, where a score depends on all tokens present,
// over the rows of all of them (abi.h, KVLAB_SCOPE_*). Selectors by observed queries chose among the tokens of the
// prefill; they are passed over here, and what they dropped counts as never seen. A token that is not chosen leaves its
// slot:
//
//   slots     0 ... sinks | encoded by all codecs ........ | by one | raw ......... | tail |
//   evicted   never       | dead, until half of a span is  | dead   | gone at once  | never|
//
// A dead slot is one inside a block whose token was evicted: it is masked, and still counted. A span is the slots
// between two cuts that all codecs have in common. A span that is all dead goes; one that is half dead is compacted,
// each block by its codec's gather; where a codec cannot gather, the span stays as it is.
#pragma once

#include <span>
#include <vector>

#include "core/backend/backend.hpp"
#include "core/cache/append.hpp"
#include "core/cache/layer.hpp"

namespace kvlab {

// Whether a head that comes to hold `kept` tokens, of `seen`, evicts.
bool is_above_budget(const Layer& layer, std::uint64_t kept, std::uint64_t seen);
// Padded bytes that an eviction of this head takes at the most before it gives any back.
std::uint64_t eviction_bytes(const HeadCall& call, std::uint64_t slots);

// Evicts from those of the heads that are above their budget. What it takes comes out of `promise`. Throws what
// selectors, codecs and encodings fail with.
void evict(std::span<const HeadCall> calls, Arena& arena, Promise& promise, Backend& backend);

}  // namespace kvlab
