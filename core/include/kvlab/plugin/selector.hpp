// A selector as a C++ struct. It derives from kvlab::Selector, has `static constexpr kvlab::Info info`, may declare
// `parameters()`, and defines
//
//   void scores(const HeadView& head, std::span<float> out) const;   one score per token; the highest stay
//
// and, where it looks at more than positions, `unsigned reads() const` (KVLAB_READS_KEYS | ...). Const, and called
// from many threads at once.
//
// `unsigned scope() const` says what a token's score depends on beside the token itself (abi.h). Where it is left out
// it is KVLAB_SCOPE_OBSERVED for a selector that reads queries, else KVLAB_SCOPE_PRESENT, which is always right:
// KVLAB_SCOPE_TOKEN, where it is true, saves calls over all tokens while decoding.
#pragma once

#include <kvlab/abi.h>
#include <kvlab/plugin/codec.hpp>

#include <span>

namespace kvlab {

// Tokens of one KV head of one sequence, and the observed queries of its group. Which tokens is a matter of the scope.
struct HeadView {
  std::uint32_t sequence;
  std::uint32_t kv_head;
  std::span<const std::uint32_t> positions;  // [tokens], ascending
  TokenView keys;
  TokenView values;
  kvlab_queries observed;
  Scratch scratch;

  [[nodiscard]] std::uint64_t tokens() const { return positions.size(); }
  // Query `index` of query head `head` of the group.
  [[nodiscard]] std::span<const float> query(std::uint32_t head, std::uint64_t index) const {
    return {observed.base + static_cast<std::int64_t>(head) * observed.head_stride +
                static_cast<std::int64_t>(index) * observed.query_stride,
            observed.channels};
  }
};

struct Selector {
  Layer layer;
  const kvlab_host* host = nullptr;

  void start() {}
  [[nodiscard]] unsigned reads() const { return 0; }
  [[nodiscard]] std::uint64_t scratch(std::uint64_t /*tokens*/, std::uint64_t /*observed*/) const { return 0; }
};

namespace detail {

template <class Method>
struct SelectorTable {
  static const Method& self(const kvlab_selector* selector) { return *reinterpret_cast<const Method*>(selector); }

  static kvlab_status create(const kvlab_host* host, const kvlab_layer* layer, const kvlab_value* values,
                             kvlab_selector** out, kvlab_message* message) {
    return create_method<Method>(host, layer, values, out, message);
  }
  static void destroy(kvlab_selector* selector) { delete reinterpret_cast<Method*>(selector); }
  static std::uint32_t reads(const kvlab_selector* selector) { return self(selector).reads(); }
  static std::uint32_t scope(const kvlab_selector* selector) {
    if constexpr (requires { self(selector).scope(); }) {
      return self(selector).scope();
    } else {
      return (self(selector).reads() & KVLAB_READS_QUERIES) != 0 ? KVLAB_SCOPE_OBSERVED : KVLAB_SCOPE_PRESENT;
    }
  }
  static std::uint64_t scratch(const kvlab_selector* selector, std::uint64_t tokens, std::uint64_t observed) {
    return self(selector).scratch(tokens, observed);
  }
  static kvlab_status scores(const kvlab_selector* selector, const kvlab_selector_in* in, float* scores,
                             kvlab_message* message) {
    return guarded(message, [&] {
      const HeadView head{in->sequence,        in->kv_head,  std::span(in->positions, in->tokens),
                          {in->keys},          {in->values}, in->observed,
                          Scratch(in->scratch)};
      self(selector).scores(head, std::span(scores, in->tokens));
    });
  }

  static constexpr kvlab_selector_functions functions{
      sizeof(kvlab_selector_functions), 0, &create, &destroy, &reads, &scope, &scratch, &scores, 0};
};

}  // namespace detail
}  // namespace kvlab
