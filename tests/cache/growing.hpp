// What the tests of growing caches share: a plain model that keeps what a sequence was given, attention over what the
// cache decodes to, and pipelines to grow under.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <random>

#include "core/cache/manager.hpp"
#include "tests/support/support.hpp"

namespace kvlab::test {

// Everything that was given to one sequence of one layer, as f32 rows [kv_head][token][channel].
struct Given {
  std::vector<std::vector<float>> keys;
  std::vector<std::vector<float>> values;
};

class Model {
 public:
  Model(const LayerShape& shape, std::uint64_t seed) : shape_(shape), engine_(seed) {}

  // New rows for one sequence, rounded to the dtype; `stored` gets them as a tensor [1, kv_head, token, channel].
  std::vector<std::byte> draw(std::uint64_t tokens, std::uint32_t channels, std::vector<std::vector<float>>& into) {
    std::vector<std::byte> stored(shape_.kv_heads * tokens * channels * size_of(shape_.dtype));
    std::normal_distribution<float> normal;
    std::vector<float> rows(tokens * channels);
    for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
      for (auto& x : rows) x = normal(engine_);
      auto* to = stored.data() + head * rows.size() * size_of(shape_.dtype);
      from_f32(shape_.dtype, rows.data(), to, rows.size());
      to_f32(shape_.dtype, to, rows.data(), rows.size());
      into.resize(shape_.kv_heads);
      into[head].insert(into[head].end(), rows.begin(), rows.end());
    }
    return stored;
  }

  std::vector<float> queries(std::uint64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> rows(shape_.query_heads * count * shape_.head_dim_keys);
    for (auto& x : rows) x = normal(engine_);
    return rows;
  }

  std::mt19937_64& engine() { return engine_; }

 private:
  LayerShape shape_;
  std::mt19937_64 engine_;
};

inline KvTensor tensor(const std::vector<std::byte>& stored, const LayerShape& shape, std::uint64_t tokens,
                       std::uint32_t channels) {
  const auto head = static_cast<std::int64_t>(tokens * channels);
  return {stored.data(), head * shape.kv_heads, head, channels};
}

// Attention over what a sequence of the cache decodes to, in f64: [query_head, query, channel].
inline std::vector<double> reference(const LayerCache& cache, std::uint32_t sequence, const std::vector<float>& queries,
                                     const std::vector<std::uint32_t>& positions) {
  const LayerShape& s = cache.shape();
  std::vector<double> out;
  std::vector<std::uint32_t> at;
  for (std::uint32_t q = 0; q < s.query_heads; ++q) {
    const Head& head = cache.head(sequence, q / s.group());
    head.positions.write_out(at);
    const auto rows = [&](const Role& role, const std::vector<Segment>& segments) {
      std::vector<float> all(head.positions.tokens() * role.channels);
      for (const auto& segment : segments) {
        cache.backend().read(role, q / s.group(), segment, head.positions.view(), 0, segment.tokens, all.data() + segment.first * role.channels);
      }
      return all;
    };
    const std::vector<float> keys = rows(cache.layer().keys, head.keys.segments);
    const std::vector<float> values = rows(cache.layer().values, head.values.segments);
    for (std::size_t i = 0; i < positions.size(); ++i) {
      std::vector<double> sum(s.head_dim_values);
      double total = 0;
      for (std::uint64_t t = 0; t < head.positions.tokens(); ++t) {
        if (at[t] > positions[i]) continue;
        double logit = 0;
        for (std::uint32_t c = 0; c < s.head_dim_keys; ++c) {
          logit += static_cast<double>(queries[(q * positions.size() + i) * s.head_dim_keys + c]) *
                   keys[t * s.head_dim_keys + c];
        }
        const double weight = std::exp(logit * s.attention_scale);
        total += weight;
        for (std::uint32_t c = 0; c < s.head_dim_values; ++c) sum[c] += weight * values[t * s.head_dim_values + c];
      }
      for (const double x : sum) out.push_back(total > 0 ? x / total : 0);
    }
  }
  return out;
}

// What was given and is kept, decoded, is near what was given: within `near`, and exact where raw. A head keeps `most`.
inline void expect_holds(const LayerCache& cache, std::uint32_t sequence, const Given& given, double near,
                         std::uint64_t most) {
  for (std::uint32_t h = 0; h < cache.shape().kv_heads; ++h) {
    const Head& head = cache.head(sequence, h);
    std::vector<std::uint32_t> positions;
    head.positions.write_out(positions);
    const auto alive = static_cast<std::uint64_t>(
        std::count_if(positions.begin(), positions.end(), [](std::uint32_t p) { return p < evicted; }));
    ASSERT_EQ(head.kept(), alive);
    ASSERT_LE(alive, most);
    const auto check = [&](const Role& role, const std::vector<Segment>& segments, const std::vector<float>& rows) {
      std::uint64_t next = 0;
      for (const auto& segment : segments) {
        ASSERT_EQ(segment.first, next);
        next += segment.tokens;
        std::vector<float> decoded(segment.tokens * role.channels);
        cache.backend().read(role, h, segment, head.positions.view(), 0, segment.tokens, decoded.data());
        std::vector<float> got;
        std::vector<float> exact;
        for (std::uint64_t t = 0; t < segment.tokens; ++t) {
          const std::uint32_t position = positions[segment.first + t];
          if (position >= evicted) continue;
          const auto row = static_cast<std::ptrdiff_t>(t * role.channels);
          const auto from = static_cast<std::ptrdiff_t>(position * role.channels);
          const auto count = static_cast<std::ptrdiff_t>(role.channels);
          got.insert(got.end(), decoded.begin() + row, decoded.begin() + row + count);
          exact.insert(exact.end(), rows.begin() + from, rows.begin() + from + count);
        }
        if (segment.encoded) {
          // A token alone may lie where a low rank is worst.
          ASSERT_LT(test::relative(got, exact), segment.tokens < 8 ? 2 * near : near)
              << "block of " << segment.tokens << " tokens from " << segment.first << " of " << positions.size()
              << ", rung " << int{segment.rung} << (&role == &cache.layer().keys ? ", keys" : ", values") << " head " << h;
        } else {
          ASSERT_EQ(got, exact);
        }
      }
      ASSERT_EQ(next, positions.size());
    };
    if (cache.tokens(sequence) == 0) continue;
    check(cache.layer().keys, head.keys.segments, given.keys[h]);
    check(cache.layer().values, head.values.segments, given.values[h]);
  }
}

inline std::vector<std::byte> all_bytes(const LayerCache& cache, std::uint32_t sequence) {
  std::vector<std::byte> bytes;
  for (std::uint32_t h = 0; h < cache.shape().kv_heads; ++h) {
    for (const auto* segments : {&cache.head(sequence, h).keys.segments, &cache.head(sequence, h).values.segments}) {
      for (const auto& segment : *segments) {
        bytes.resize(bytes.size() + segment.size);
        cache.backend().read(segment.data, bytes.data() + bytes.size() - segment.size, segment.size);
      }
    }
  }
  return bytes;
}

inline Pipeline kivi(std::uint64_t sinks, std::uint64_t tail, const char* bits = "4") {
  Pipeline pipeline;
  pipeline.sinks = sinks;
  pipeline.tail = tail;
  pipeline.keys =
      spec("quantize", {{"bits", bits}, {"symmetric", "false"}, {"scales", "per_channel"}, {"group", "32"}});
  pipeline.values = spec("quantize", {{"bits", bits}, {"symmetric", "false"}, {"group", "32"}});
  return pipeline;
}

// Neither role in blocks that the others have.
inline Pipeline one_role_each() {
  Pipeline pipeline;
  pipeline.keys = spec("quantize", {{"bits", "5"}});
  pipeline.values = spec("quantize", {{"bits", "4"}, {"scales", "per_channel"}, {"group", "64"}});
  return pipeline;
}

inline Rung rung(std::uint64_t above_tokens, const Pipeline& codecs, bool recode = false) {
  return {above_tokens, codecs.keys, codecs.values, recode};
}

// A selector whose scores depend on all tokens present.
inline MethodSpec keydiff() {
  static const Registry plugins({std::filesystem::path(KVLAB_BINARY_DIR) / "tests" / "plugins"});
  return {plugins.find("keydiff"), {}};
}

inline std::vector<std::pair<std::string, Pipeline>> pipelines() {
  std::vector<std::pair<std::string, Pipeline>> all{
      {"raw", {}}, {"kivi", kivi(0, 0)}, {"kivi, sinks and tail", kivi(4, 50)}};
  Pipeline one_role;
  one_role.sinks = 3;
  one_role.values = spec("quantize");
  all.emplace_back("raw keys", one_role);
  Pipeline rank;
  rank.tail = 7;
  rank.keys = spec("low_rank", {{"rank", "14"}, {"block", "300"}, {"factor_dtype", "f32"}});
  rank.values = spec("quantize", {{"scales", "per_channel"}});
  all.emplace_back("low_rank", rank);
  Pipeline window = kivi(4, 20);
  window.select = {{spec("sliding_window"), {100, 1}}};
  all.emplace_back("window", window);
  Pipeline scored = rank;  // blocks of 300 and of 128
  scored.sinks = 2;
  scored.select = {{spec("magnitude"), {std::nullopt, 0.5}}};
  all.emplace_back("magnitude, cut apart", scored);
  Pipeline hybrid = kivi(1, 30);
  hybrid.select = {{spec("sliding_window"), {300, 1}}, {spec("magnitude"), {std::nullopt, 0.6}}};
  all.emplace_back("hybrid", hybrid);
  Pipeline raw_window;
  raw_window.select = {{spec("magnitude"), {50, 1}}};
  all.emplace_back("raw, magnitude", raw_window);
  Pipeline one = one_role;
  one.select = {{spec("random"), {200, 1}}};
  all.emplace_back("raw keys, random", one);
  Pipeline observed = window;  // the observed queries' choice is the prefill's alone, the window's goes on
  observed.select = {{spec("attention_score"), {std::nullopt, 0.5}}, {spec("sliding_window"), {150, 1}}};
  all.emplace_back("attention score, window", observed);
  Pipeline present = kivi(2, 30);
  present.select = {{keydiff(), {std::nullopt, 0.6}}};
  all.emplace_back("keydiff", present);
  Pipeline ladder = kivi(4, 50);
  ladder.ladder = {rung(0, kivi(0, 0, "8")), rung(300, kivi(0, 0, "4")), rung(801, kivi(0, 0, "6"))};
  all.emplace_back("ladder", ladder);
  Pipeline recoded = rank;  // from blocks of 32 and 128 to 300 and 128, and back
  recoded.ladder = {rung(0, kivi(0, 0)), rung(200, rank, true), rung(330, one_role_each()),
                    rung(700, kivi(0, 0), true)};
  all.emplace_back("recoded ladder", recoded);
  Pipeline by_bytes = kivi(4, 40);
  by_bytes.ladder = {rung(0, kivi(0, 0, "8")), rung(0, rank), rung(0, kivi(0, 0, "3"))};
  by_bytes.bytes_per_sequence = 60000;
  all.emplace_back("recoded by bytes", by_bytes);
  Pipeline narrower;  // no tail: a chunk that is open when its block is cut
  narrower.ladder = {rung(0, one_role), rung(170, one_role_each())};
  narrower.ladder[0].keys = spec("quantize");
  narrower.ladder[1].keys = kivi(0, 0).keys;
  all.emplace_back("ladder without a tail", narrower);
  Pipeline few = window;
  few.ladder = by_bytes.ladder;
  few.bytes_per_sequence = 25000;
  few.select = {{spec("magnitude"), {std::nullopt, 0.6}}};
  all.emplace_back("recoded by bytes, magnitude", few);
  Pipeline windowed = window;
  windowed.ladder = {rung(0, kivi(0, 0, "8")), rung(250, one_role_each(), true), rung(600, kivi(0, 0), true)};
  all.emplace_back("recoded window", windowed);
  Pipeline half = scored;
  half.ladder = recoded.ladder;
  all.emplace_back("recoded magnitude", half);
  for (auto& [name, pipeline] : all) {
    if (!pipeline.ladder.empty()) pipeline.keys = pipeline.values = std::nullopt;
  }
  return all;
}

}  // namespace kvlab::test
