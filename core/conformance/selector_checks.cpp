// What every selector must do. What it does not declare to read lies in memory that must not be touched.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <thread>

#include "core/conformance/checks.hpp"

namespace kvlab::conformance {
namespace {

constexpr std::uint32_t head_dim = 24;
constexpr std::uint64_t observed_queries = 5;
constexpr std::uint32_t group = 2;

// A head's tokens, of which any may be given to a call.
struct HeadTokens {
  HeadTokens(Dtype dtype, std::uint64_t count)
      : keys(draw(dtype, count, head_dim, Content::normal, 1)),
        values(draw(dtype, count, head_dim, Content::normal, 2)),
        queries(draw(Dtype::f32, group * observed_queries, head_dim, Content::normal, 3).rows),
        positions(observed_queries) {
    std::iota(positions.begin(), positions.end(), static_cast<std::uint32_t>(3 * count));
  }

  Tokens keys;
  Tokens values;
  std::vector<float> queries;
  std::vector<std::uint32_t> positions;  // of the queries: behind all tokens
};

Tokens chosen(const Tokens& all, const std::vector<std::uint32_t>& which) {
  Tokens some{all.dtype, which.size(), all.channels, {}};
  for (const std::uint32_t t : which) {
    const std::vector<float> row = all.row(t);
    some.rows.insert(some.rows.end(), row.begin(), row.end());
  }
  return some;
}

kvlab_view forbidden_view(std::uint64_t tokens) { return {forbidden(), KVLAB_F32, 1, tokens, head_dim, 0, head_dim}; }

// Scores of these tokens; a token's position is 3 of its number.
std::vector<float> scores_of(const SelectorInstance& selector, const HeadTokens& head,
                             const std::vector<std::uint32_t>& which) {
  const std::uint64_t tokens = which.size();
  const StoredTokens keys(chosen(head.keys, which), head_dim + 4);
  const StoredTokens values(chosen(head.values, which), head_dim);
  Guarded positions(tokens * sizeof(std::uint32_t), sizeof(std::uint32_t));
  std::transform(which.begin(), which.end(), positions.as<std::uint32_t>(), [](std::uint32_t t) { return 3 * t; });
  positions.protect();
  const auto reads = [&](std::uint32_t what) { return (selector.reads() & what) != 0; };
  kvlab_selector_in in{};
  in.struct_size = sizeof in;
  in.tokens = tokens;
  in.positions = positions.as<std::uint32_t>();
  in.keys = reads(KVLAB_READS_KEYS) ? keys.view() : forbidden_view(tokens);
  in.values = reads(KVLAB_READS_VALUES) ? values.view() : forbidden_view(tokens);
  Guarded queries(head.queries.size() * sizeof(float), sizeof(float));
  std::copy(head.queries.begin(), head.queries.end(), queries.as<float>());
  queries.protect();
  in.observed = {queries.as<float>(),
                 group,
                 observed_queries,
                 head_dim,
                 static_cast<std::int64_t>(observed_queries * head_dim),
                 head_dim,
                 head.positions.data()};
  if (!reads(KVLAB_READS_QUERIES)) {
    in.observed.base = static_cast<const float*>(forbidden());
    in.observed.positions = static_cast<const std::uint32_t*>(forbidden());
  }
  const Guarded scratch = Guarded::scratch(selector.scratch(tokens, reads(KVLAB_READS_QUERIES) ? observed_queries : 0));
  in.scratch = scratch.as<void>();
  const Guarded scores(tokens * sizeof(float), sizeof(float));
  selector.scores(in, {scores.as<float>(), tokens});
  scores.expect_untouched_beside("scores");
  scratch.expect_untouched_beside("scores (scratch)");
  return {scores.as<float>(), scores.as<float>() + tokens};
}

std::vector<std::uint32_t> first_tokens(std::uint64_t count) {
  std::vector<std::uint32_t> all(count);
  std::iota(all.begin(), all.end(), 0U);
  return all;
}

std::size_t for_selector_cases(const Method& method, const Place& place,
                               const std::function<void(const SelectorInstance&, const HeadTokens&)>& body) {
  std::size_t ran = 0;
  for (const MethodSpec& spec : settings(method)) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
      for (const std::uint64_t tokens : {std::uint64_t{1}, std::uint64_t{5}, std::uint64_t{211}}) {
        place.set((spec.values.empty() ? "" : text_of(spec) + ", ") + std::string(name_of(dtype)) + ", " +
                  std::to_string(tokens) + (tokens == 1 ? " token" : " tokens"));
        ran += unless_refused([&] {
          const LayerShape shape = layer_shape(dtype, head_dim);
          const SelectorInstance selector(spec, shape.describe(KVLAB_ROLE_BOTH));
          body(selector, HeadTokens(dtype, tokens));
        });
      }
    }
  }
  place.set("");
  return ran;
}

bool is_near(float a, float b) { return a == b || std::abs(a - b) <= 1e-4F * std::max(std::abs(a), std::abs(b)); }

}  // namespace

void scores_something(const Method& method, const Place& place) {
  const std::size_t ran = for_selector_cases(method, place, [](const auto& selector, const HeadTokens& head) {
    static_cast<void>(scores_of(selector, head, first_tokens(head.keys.count)));
  });
  if (ran == 0) throw Failure("it refuses every setting, dtype and number of tokens");
}

void scores_repeatedly(const Method& method, const Place& place) {
  for_selector_cases(method, place, [](const auto& selector, const HeadTokens& head) {
    const auto all = first_tokens(head.keys.count);
    const std::vector<float> expected = scores_of(selector, head, all);
    std::vector<std::string> wrong(4);
    {
      std::vector<std::jthread> threads;
      for (auto& sentence : wrong) {
        threads.emplace_back([&] {
          try {
            if (scores_of(selector, head, all) != expected) {
              throw Failure("scores are others for the same tokens, or from another thread");
            }
          } catch (const std::exception& error) {
            sentence = error.what();
          }
        });
      }
    }
    for (const auto& sentence : wrong) {
      if (!sentence.empty()) throw Failure(sentence);
    }
  });
}

// KVLAB_SCOPE_TOKEN: a token's score is the same whichever other tokens are there.
void keeps_to_its_scope(const Method& method, const Place& place) {
  for_selector_cases(method, place, [](const auto& selector, const HeadTokens& head) {
    if (selector.scope() != KVLAB_SCOPE_TOKEN) return;
    const auto all = first_tokens(head.keys.count);
    const std::vector<float> together = scores_of(selector, head, all);
    std::mt19937 engine(1);
    for (const std::size_t size : {std::size_t{1}, std::size_t{2}, all.size() / 2 + 1}) {
      for (std::size_t first = 0; first < all.size(); first += std::max<std::size_t>(size, 7)) {
        std::vector<std::uint32_t> some;
        std::sample(all.begin(), all.end(), std::back_inserter(some), static_cast<std::ptrdiff_t>(size), engine);
        const std::vector<float> apart = scores_of(selector, head, some);
        for (std::size_t i = 0; i < some.size(); ++i) {
          if (is_near(apart[i], together[some[i]])) continue;
          throw Failure("it declares KVLAB_SCOPE_TOKEN, but token " + std::to_string(some[i]) + " scores " +
                        std::to_string(together[some[i]]) + " among " + std::to_string(all.size()) + " tokens and " +
                        std::to_string(apart[i]) + " among " + std::to_string(some.size()) +
                        " of them; KVLAB_SCOPE_PRESENT is for such scores");
        }
      }
    }
  });
}

}  // namespace kvlab::conformance
