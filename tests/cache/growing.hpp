// What the tests of growing caches share: rows that are drawn and kept in a plain model, and what a cache must hold of
// them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/cache/manager.hpp"
#include "tests/cache/pipelines.hpp"
#include "tests/support/attention.hpp"
#include "tests/support/support.hpp"

namespace kvlab::test {

// Everything that was given to one sequence of one layer, as f32 rows [kv_head][token][channel].
struct Given {
  std::vector<std::vector<float>> keys;
  std::vector<std::vector<float>> values;
};

// Keys and values of some tokens of one sequence, [1, kv_head, token, channel].
struct Drawn {
  LayerShape shape;
  std::uint64_t tokens;
  std::vector<std::byte> stored_keys;
  std::vector<std::byte> stored_values;

  [[nodiscard]] KvTensor keys() const {
    return KvTensor::contiguous(shape, KVLAB_ROLE_KEYS, 1, tokens, stored_keys.data());
  }
  [[nodiscard]] KvTensor values() const {
    return KvTensor::contiguous(shape, KVLAB_ROLE_VALUES, 1, tokens, stored_values.data());
  }
  [[nodiscard]] Prefill prefill() const { return {keys(), values(), {}}; }
};

class Model {
 public:
  Model(const LayerShape& shape, std::uint64_t seed) : shape_(shape), engine_(seed) {}

  // N(0, 1), rounded to the dtype; `given` gets them behind what it has.
  Drawn draw(std::uint64_t tokens, Given& given) {
    Drawn drawn{shape_, tokens, {}, {}};
    drawn.stored_keys = draw(tokens, shape_.head_dim_keys, given.keys);
    drawn.stored_values = draw(tokens, shape_.head_dim_values, given.values);
    return drawn;
  }
  Drawn draw(std::uint64_t tokens) {
    Given forgotten;
    return draw(tokens, forgotten);
  }

  // [query_head, query, channel]
  std::vector<float> queries(std::uint64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> rows(shape_.query_heads * count * shape_.head_dim_keys);
    for (auto& x : rows) x = normal(engine_);
    return rows;
  }

  std::mt19937_64& engine() { return engine_; }

 private:
  std::vector<std::byte> draw(std::uint64_t tokens, std::uint32_t channels, std::vector<std::vector<float>>& into) {
    std::vector<std::byte> stored(shape_.kv_heads * tokens * channels * size_of(shape_.dtype));
    std::normal_distribution<float> normal;
    std::vector<float> rows(tokens * channels);
    into.resize(shape_.kv_heads);
    for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
      for (auto& x : rows) x = normal(engine_);
      auto* to = stored.data() + head * rows.size() * size_of(shape_.dtype);
      from_f32(shape_.dtype, rows.data(), to, rows.size());
      to_f32(shape_.dtype, to, rows.data(), rows.size());
      into[head].insert(into[head].end(), rows.begin(), rows.end());
    }
    return stored;
  }

  LayerShape shape_;
  std::mt19937_64 engine_;
};

inline void append(CacheManager& cache, std::uint32_t sequence, const Drawn& drawn) {
  cache.append(0, std::span(&sequence, 1), drawn.keys(), drawn.values());
}

// What one sequence's attention gives: [query_head, query, channel].
inline std::vector<float> attend(CacheManager& cache, std::uint32_t sequence, const QueryTensor& queries) {
  const LayerShape& shape = cache.layer(0).shape();
  std::vector<float> out(shape.query_heads * queries.count * shape.head_dim_values, -1.0F);
  cache.attend(0, std::span(&sequence, 1), queries, out.data());
  return out;
}

// Queries of the model's at these positions see what the cache decodes to, and no other token.
inline void expect_attends(CacheManager& cache, std::uint32_t sequence, const std::vector<std::uint32_t>& positions,
                           Model& model, double tolerance = attention_tolerance) {
  const LayerCache& layer = cache.layer(0);
  const std::vector<float> rows = model.queries(positions.size());
  const auto queries = QueryTensor::contiguous(layer.shape(), 1, positions.size(), rows.data(), positions);
  ASSERT_LT(relative(attend(cache, sequence, queries), attention(layer, std::span(&sequence, 1), queries)), tolerance);
}

// Positions of the tokens that a head keeps.
inline std::vector<std::uint32_t> kept(const Head& head) {
  std::vector<std::uint32_t> positions;
  head.positions.write_out(positions);
  std::erase_if(positions, [](std::uint32_t position) { return position >= evicted; });
  return positions;
}

// One segment of a role against what was given: near it where it is encoded, exact where it is raw.
inline void expect_near(const Segment& segment, const Held& got, const std::vector<float>& given, double near) {
  const std::size_t channels = got.positions.empty() ? 0 : got.rows.size() / got.positions.size();
  std::vector<float> exact;
  for (const std::uint32_t position : got.positions) {
    const auto row = given.begin() + static_cast<std::ptrdiff_t>(position * channels);
    exact.insert(exact.end(), row, row + static_cast<std::ptrdiff_t>(channels));
  }
  if (!segment.encoded) {
    ASSERT_EQ(got.rows, exact);
    return;
  }
  // A token alone may lie where a low rank is worst.
  ASSERT_LT(relative(got.rows, exact), segment.tokens < 8 ? 2 * near : near)
      << "block of " << segment.tokens << " tokens from " << segment.first << ", rung " << int{segment.rung};
}

// What was given and is kept, decoded, is near what was given: within `near`, and exact where raw. A head keeps `most`
// tokens. Segments lie side by side.
inline void expect_holds(const LayerCache& cache, std::uint32_t sequence, const Given& given, double near,
                         std::uint64_t most) {
  if (cache.tokens(sequence) == 0) return;
  for (std::uint32_t kv_head = 0; kv_head < cache.shape().kv_heads; ++kv_head) {
    const Head& head = cache.head(sequence, kv_head);
    std::vector<std::uint32_t> positions;
    head.positions.write_out(positions);
    ASSERT_EQ(head.kept(), kept(head).size());
    ASSERT_LE(head.kept(), most);
    for (const auto role : {KVLAB_ROLE_KEYS, KVLAB_ROLE_VALUES}) {
      SCOPED_TRACE((role == KVLAB_ROLE_KEYS ? "keys, head " : "values, head ") + std::to_string(kv_head));
      const Held all = held(cache, sequence, kv_head, role);
      const std::size_t channels = cache.shape().head_dim(role);
      std::uint64_t slot = 0;
      std::size_t next = 0;  // of `all`
      for (const Segment& segment : head.of(role).segments) {
        ASSERT_EQ(segment.first, slot);
        Held own;
        for (; slot < segment.end(); ++slot) {
          if (positions[slot] >= evicted) continue;
          ASSERT_EQ(all.positions[next], positions[slot]);
          own.positions.push_back(positions[slot]);
          const auto row = all.rows.begin() + static_cast<std::ptrdiff_t>(next++ * channels);
          own.rows.insert(own.rows.end(), row, row + static_cast<std::ptrdiff_t>(channels));
        }
        expect_near(segment, own, (role == KVLAB_ROLE_KEYS ? given.keys : given.values)[kv_head], near);
      }
      ASSERT_EQ(slot, positions.size());
    }
  }
}

// A cache of one layer with one sequence, and all that it was given.
class Grower {
 public:
  explicit Grower(const Pipeline& pipeline, const LayerShape& shape = test::shape(1, 2, 4, 16, Dtype::bf16),
                  const CacheOptions& options = {}, std::uint64_t seed = 1)
      : model_(shape, seed), cache_(pipeline, std::span(&shape, 1), backend(), options) {}

  void prefill(std::uint64_t tokens) {
    given_ = {};
    cache_.prefill(0, 0, model_.draw(tokens, given_).prefill());
  }
  void append(std::uint64_t tokens = 1) { test::append(cache_, 0, model_.draw(tokens, given_)); }
  void expect_holds(std::uint64_t most = UINT64_MAX) { test::expect_holds(layer(), 0, given_, 0.45, most); }
  void expect_attends(const std::vector<std::uint32_t>& positions) {
    test::expect_attends(cache_, 0, positions, model_);
  }

  CacheManager& cache() { return cache_; }
  [[nodiscard]] const LayerCache& layer() const { return cache_.layer(0); }
  [[nodiscard]] std::uint32_t tokens() const { return static_cast<std::uint32_t>(layer().tokens(0)); }
  [[nodiscard]] const Head& head(std::uint32_t kv_head = 0) const { return layer().head(0, kv_head); }
  [[nodiscard]] const Given& given() const { return given_; }

 private:
  Model model_;
  Given given_;
  CacheManager cache_;
};

}  // namespace kvlab::test
