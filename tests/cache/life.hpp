// A decoding life drawn at random: sequences that come, are filled, grow, fork, are cleared and go, in one cache or in
// several side by side, against a plain model that keeps all rows.
#pragma once

#include <functional>
#include <map>
#include <numeric>

#include "tests/cache/growing.hpp"

namespace kvlab::test {

class Life {
 public:
  // The caches are empty and have shape.batch sequences.
  Life(const Pipeline& pipeline, const LayerShape& shape, std::vector<CacheManager*> caches, std::uint64_t seed)
      : pipeline_(pipeline), shape_(shape), caches_(std::move(caches)), model_(shape, seed) {
    for (std::uint32_t i = 0; i < shape.batch; ++i) given_[i] = {};
  }

  // What surrounds each append to a cache.
  using Append = std::function<void()>;
  std::function<void(CacheManager& cache, std::uint32_t sequence, std::uint64_t tokens, const Append& append)>
      appending = [](CacheManager&, std::uint32_t, std::uint64_t, const Append& append) { append(); };

  void step() {
    auto& engine = model_.engine();
    auto chosen = given_.begin();
    std::advance(chosen, static_cast<std::ptrdiff_t>(engine() % given_.size()));
    const std::uint32_t sequence = chosen->first;
    const std::uint64_t what = engine() % 20;
    if (what == 0) {
      prefill(sequence, engine() % 400);
    } else if (what < 14) {
      append(sequence, what < 11 ? 1 + engine() % 4 : engine() % 150);
    } else if (what == 14 && given_.size() < 5) {
      const Given copy = chosen->second;
      std::uint32_t fork = 0;
      for (auto* cache : caches_) fork = cache->fork(sequence);
      given_[fork] = copy;
    } else if (what == 15) {
      for (auto* cache : caches_) cache->clear(sequence);
      chosen->second = {};
    } else if (what == 16 && given_.size() > 1) {
      for (auto* cache : caches_) cache->remove(sequence);
      given_.erase(chosen);
    } else if (what == 17 && given_.size() < 5) {
      std::uint32_t added = 0;
      for (auto* cache : caches_) added = cache->add();
      given_[added] = {};
    } else {
      attend(sequence);
    }
  }

  [[nodiscard]] const std::map<std::uint32_t, Given>& given() const { return given_; }

  void expect_all_hold(CacheManager& cache) const {
    for (const auto& [sequence, rows] : given_) {
      const std::uint64_t tokens = cache.layer(0).tokens(sequence);
      std::uint64_t budget = tokens;
      for (const auto& select : pipeline_.select) {
        budget = std::max(select.budget.of(budget), std::min(budget, pipeline_.sinks + pipeline_.tail));
      }
      expect_holds(cache.layer(0), sequence, rows, 0.45, budget + 300);
    }
    expect_decompresses(cache);
  }

 private:
  // All sequences, one behind the other, as long as the longest; what was evicted or is not there is 0.
  void expect_decompresses(CacheManager& cache) const {
    const LayerCache& layer = cache.layer(0);
    std::uint64_t longest = 0;
    for (const auto& [sequence, rows] : given_) longest = std::max(longest, layer.tokens(sequence));
    std::vector<std::byte> out[2];
    std::vector<float> expected[2];
    for (const auto role : {KVLAB_ROLE_KEYS, KVLAB_ROLE_VALUES}) {
      const std::uint64_t channels = shape_.head_dim(role);
      auto& all = expected[role];
      for (const auto& [sequence, rows] : given_) {
        for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
          const Held own = held(layer, sequence, head, role);
          const std::size_t first = all.size();
          all.resize(first + longest * channels);
          for (std::size_t i = 0; i < own.positions.size(); ++i) {
            std::copy_n(own.rows.data() + i * channels, channels, all.data() + first + own.positions[i] * channels);
          }
        }
      }
      out[role].assign(all.size() * size_of(shape_.dtype), std::byte{1});
    }
    cache.decompress(0, out[KVLAB_ROLE_KEYS].data(), out[KVLAB_ROLE_VALUES].data());
    for (const auto role : {KVLAB_ROLE_KEYS, KVLAB_ROLE_VALUES}) {
      std::vector<std::byte> rounded(out[role].size());
      from_f32(shape_.dtype, expected[role].data(), rounded.data(), expected[role].size());
      ASSERT_EQ(out[role], rounded);
    }
  }

  void prefill(std::uint32_t sequence, std::uint64_t tokens) {
    if (!pipeline_.select.empty() && tokens < 80) tokens = 0;  // a prefill refuses a budget below sinks and tail
    Given& given = given_[sequence];
    given = {};
    const Drawn drawn = model_.draw(tokens, given);
    const std::uint64_t observed = std::min<std::uint64_t>(3, tokens);
    const std::vector<float> queries = model_.queries(observed);
    std::vector<std::uint32_t> positions(observed);
    std::iota(positions.begin(), positions.end(), static_cast<std::uint32_t>(tokens - observed));
    Prefill input = drawn.prefill();
    input.observed = QueryTensor::contiguous(shape_, 1, observed, queries.data(), positions);
    for (auto* cache : caches_) cache->prefill(0, sequence, input);
  }

  // Where a sequence's budget is used up, in one cache or all, it is cleared.
  void append(std::uint32_t sequence, std::uint64_t tokens) {
    Given& given = given_[sequence];
    const Drawn drawn = model_.draw(tokens, given);
    try {
      for (auto* cache : caches_) {
        appending(*cache, sequence, tokens, [&] { test::append(*cache, sequence, drawn); });
      }
    } catch (const BudgetError&) {
      ASSERT_GT(pipeline_.bytes_per_sequence, 0U);
      for (auto* cache : caches_) cache->clear(sequence);
      given = {};
    }
  }

  void attend(std::uint32_t sequence) {
    const std::uint64_t tokens = caches_.front()->layer(0).tokens(sequence);
    std::vector<std::uint32_t> positions;  // the last few tokens' own, and one after all
    for (std::uint64_t back = std::min<std::uint64_t>(2, tokens); back-- > 0;) {
      positions.push_back(static_cast<std::uint32_t>(tokens - 1 - back));
    }
    positions.push_back(static_cast<std::uint32_t>(tokens + 3));
    for (auto* cache : caches_) {
      expect_attends(*cache, sequence, positions, model_, 1e-3);  // values that cancel leave little to be relative to
      if (testing::Test::HasFatalFailure()) return;
    }
  }

  const Pipeline& pipeline_;
  const LayerShape& shape_;
  std::vector<CacheManager*> caches_;
  Model model_;
  std::map<std::uint32_t, Given> given_;
};

}  // namespace kvlab::test
