// A cache that grows: against a plain model that keeps what it was given, and against one prefill.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <random>

#include "core/cache/manager.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

using test::spec;

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

KvTensor tensor(const std::vector<std::byte>& stored, const LayerShape& shape, std::uint64_t tokens,
                std::uint32_t channels) {
  const auto head = static_cast<std::int64_t>(tokens * channels);
  return {stored.data(), head * shape.kv_heads, head, channels};
}

// Attention over what a sequence of the cache decodes to, in f64: [query_head, query, channel].
std::vector<double> reference(const LayerCache& cache, std::uint32_t sequence, const std::vector<float>& queries,
                              const std::vector<std::uint32_t>& positions) {
  const LayerShape& s = cache.shape();
  std::vector<double> out;
  Workspace workspace;
  std::vector<std::uint32_t> scratch;
  for (std::uint32_t q = 0; q < s.query_heads; ++q) {
    const Head& head = cache.head(sequence, q / s.group());
    const auto rows = [&](const Role& role, const std::vector<Segment>& segments) {
      std::vector<float> all(head.positions.tokens() * role.channels);
      for (const auto& segment : segments) {
        LayerCache::decode(role, head, q / s.group(), segment, segment.first, segment.tokens,
                           all.data() + segment.first * role.channels, workspace);
      }
      return all;
    };
    const std::vector<float> keys = rows(cache.keys(), head.keys);
    const std::vector<float> values = rows(cache.values(), head.values);
    for (std::size_t i = 0; i < positions.size(); ++i) {
      std::vector<double> sum(s.head_dim_values);
      double total = 0;
      for (std::uint64_t t = 0; t < head.positions.tokens(); ++t) {
        if (head.positions.range(t, 1, scratch).first > positions[i]) continue;
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
void expect_holds(const LayerCache& cache, std::uint32_t sequence, const Given& given, double near,
                  std::uint64_t most) {
  Workspace workspace;
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
        LayerCache::decode(role, head, h, segment, segment.first, segment.tokens, decoded.data(), workspace);
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
          ASSERT_LT(test::relative(got, exact), got.empty() ? 1 : near);
        } else {
          ASSERT_EQ(got, exact);
        }
      }
      ASSERT_EQ(next, positions.size());
    };
    if (cache.tokens(sequence) == 0) continue;
    check(cache.keys(), head.keys, given.keys[h]);
    check(cache.values(), head.values, given.values[h]);
  }
}

Pipeline kivi(std::uint64_t sinks, std::uint64_t tail, const char* bits = "4") {
  Pipeline pipeline;
  pipeline.sinks = sinks;
  pipeline.tail = tail;
  pipeline.keys =
      spec("quantize", {{"bits", bits}, {"symmetric", "false"}, {"scales", "per_channel"}, {"group", "32"}});
  pipeline.values = spec("quantize", {{"bits", bits}, {"symmetric", "false"}, {"group", "32"}});
  return pipeline;
}

std::vector<std::pair<std::string, Pipeline>> pipelines() {
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
  return all;
}

// Thousands of steps of prefill, append, attend, fork, clear, remove and add, drawn at random.
TEST(Grow, RandomStepsHoldAgainstAPlainModel) {
  ThreadPool pool(2);
  for (const auto& [name, pipeline] : pipelines()) {
    SCOPED_TRACE(name);
    LayerShape shape = test::shape(2, 2, 4, 16, Dtype::bf16);
    CacheManager cache(pipeline, std::span(&shape, 1), {.decodes = true});
    Model model(shape, 11);
    auto& engine = model.engine();
    std::map<std::uint32_t, Given> given{{0, {}}, {1, {}}};
    for (int step = 0; step < 1500; ++step) {
      auto chosen = given.begin();
      std::advance(chosen, static_cast<std::ptrdiff_t>(engine() % given.size()));
      const std::uint32_t sequence = chosen->first;
      const std::uint64_t what = engine() % 20;
      if (what == 0) {
        std::uint64_t tokens = engine() % 400;
        if (!pipeline.select.empty() && tokens < 80) tokens = 0;  // a prefill refuses a budget below sinks and tail
        chosen->second = {};
        const auto keys = model.draw(tokens, 16, chosen->second.keys);
        const auto values = model.draw(tokens, 16, chosen->second.values);
        cache.prefill(0, sequence, {tokens, tensor(keys, shape, tokens, 16), tensor(values, shape, tokens, 16), {}},
                      pool);
      } else if (what < 14) {
        const std::uint64_t tokens = what < 11 ? 1 + engine() % 4 : engine() % 150;
        const auto keys = model.draw(tokens, 16, chosen->second.keys);
        const auto values = model.draw(tokens, 16, chosen->second.values);
        cache.append(0, std::span(&sequence, 1), tokens, tensor(keys, shape, tokens, 16),
                     tensor(values, shape, tokens, 16), pool);
      } else if (what == 14 && given.size() < 5) {
        const Given copy = chosen->second;
        given[cache.fork(sequence)] = copy;
      } else if (what == 15) {
        cache.clear(sequence);
        chosen->second = {};
      } else if (what == 16 && given.size() > 1) {
        cache.remove(sequence);
        given.erase(chosen);
      } else if (what == 17 && given.size() < 5) {
        given[cache.add()] = {};
      } else {
        const std::uint64_t tokens = cache.layer(0).tokens(sequence);
        std::vector<std::uint32_t> positions;  // the last few tokens' own, and one after all
        for (std::uint64_t back = std::min<std::uint64_t>(2, tokens); back-- > 0;) {
          positions.push_back(static_cast<std::uint32_t>(tokens - 1 - back));
        }
        positions.push_back(static_cast<std::uint32_t>(tokens + 3));
        const std::vector<float> queries = model.queries(positions.size());
        std::vector<float> out(4 * positions.size() * 16);
        cache.attend(0, std::span(&sequence, 1), queries.data(), positions, out.data(), pool);
        // Values that cancel leave little to be relative to.
        ASSERT_LT(test::relative(out, reference(cache.layer(0), sequence, queries, positions)), 1e-3)
            << "step " << step;
      }
      ASSERT_EQ(cache.bytes().total(), cache.requested_bytes()) << "step " << step;
      if (step % 10 == 0) {
        for (const auto& [id, rows] : given) {
          const std::uint64_t tokens = cache.layer(0).tokens(id);
          std::uint64_t budget = tokens;
          for (const auto& select : pipeline.select) {
            budget = std::max(select.budget.of(budget), std::min(budget, pipeline.sinks + pipeline.tail));
          }
          expect_holds(cache.layer(0), id, rows, 0.45, budget + 300);
        }
      }
    }
  }
}

std::vector<std::byte> all_bytes(const LayerCache& cache, std::uint32_t sequence) {
  std::vector<std::byte> bytes;
  for (std::uint32_t h = 0; h < cache.shape().kv_heads; ++h) {
    for (const auto* segments : {&cache.head(sequence, h).keys, &cache.head(sequence, h).values}) {
      for (const auto& segment : *segments) bytes.insert(bytes.end(), segment.data, segment.data + segment.size);
    }
  }
  return bytes;
}

// Where the cuts coincide, growing is one prefill: the same bytes, the same attention.
TEST(Grow, EqualsOnePrefillWhereCutsCoincide) {
  ThreadPool pool(2);
  LayerShape shape = test::shape(1, 2, 4, 16, Dtype::bf16);
  for (const auto& [name, pipeline] : pipelines()) {
    for (const std::uint64_t start : {0U, 128U, 384U}) {
      if (name == "low_rank" && start != 0) continue;  // blocks of 300 and 128
      if (!pipeline.select.empty()) continue;          // evicting by blocks is not selecting at once
      for (const std::uint64_t step : {1U, 7U, 128U, 1000U}) {
        SCOPED_TRACE(name + ", from " + std::to_string(start) + " by " + std::to_string(step));
        const std::uint64_t first = start == 0 ? 0 : start + pipeline.sinks + pipeline.tail;
        const std::uint64_t total = 1152 + pipeline.sinks + pipeline.tail;
        Model model(shape, 3);
        Given given;
        const auto keys = model.draw(total, 16, given.keys);
        const auto values = model.draw(total, 16, given.values);
        const KvTensor all_keys = tensor(keys, shape, total, 16);
        const KvTensor all_values = tensor(values, shape, total, 16);
        CacheManager whole(pipeline, std::span(&shape, 1));
        CacheManager grown(pipeline, std::span(&shape, 1));
        const std::uint64_t last = name == "low_rank" ? 900 + pipeline.tail : total;
        whole.prefill(0, {last, all_keys, all_values, {}}, pool);
        grown.prefill(0, {first, all_keys, all_values, {}}, pool);
        const std::uint32_t sequence = 0;
        for (std::uint64_t done = first; done < last;) {
          const std::uint64_t now = std::min(step, last - done);
          const auto from = [&](KvTensor t) {
            t.base = static_cast<const std::byte*>(t.base) + done * 16 * 2;
            return t;
          };
          grown.append(0, std::span(&sequence, 1), now, from(all_keys), from(all_values), pool);
          done += now;
        }
        const bool same_cuts = name != "low_rank";
        EXPECT_EQ(grown.layer(0).tokens(0), whole.layer(0).tokens(0));
        if (same_cuts) {
          EXPECT_EQ(grown.bytes().total(), whole.bytes().total());
          EXPECT_EQ(all_bytes(grown.layer(0), 0), all_bytes(whole.layer(0), 0));
        }
        const std::vector<float> queries = model.queries(1);
        const std::vector<std::uint32_t> position{static_cast<std::uint32_t>(last)};
        std::vector<float> a(4 * 16);
        std::vector<float> b(4 * 16);
        whole.attend(0, std::span(&sequence, 1), queries.data(), position, a.data(), pool);
        grown.attend(0, std::span(&sequence, 1), queries.data(), position, b.data(), pool);
        EXPECT_LT(test::relative(a, b), same_cuts ? 1e-6 : 0.1);
      }
    }
  }
}

TEST(Grow, ForksShareWhatTheyHaveInCommon) {
  ThreadPool pool(1);
  LayerShape shape = test::shape(1, 1, 1, 16, Dtype::bf16);
  CacheManager cache(kivi(4, 32), std::span(&shape, 1));
  Model model(shape, 5);
  Given given;
  const auto keys = model.draw(1000, 16, given.keys);
  const auto values = model.draw(1000, 16, given.values);
  cache.prefill(0, 0, {1000, tensor(keys, shape, 1000, 16), tensor(values, shape, 1000, 16), {}}, pool);
  const std::uint64_t one = cache.bytes().total();
  const std::uint32_t fork = cache.fork(0);
  EXPECT_EQ(cache.bytes().total(), one);
  Given more;
  const auto next_keys = model.draw(1, 16, more.keys);
  const auto next_values = model.draw(1, 16, more.values);
  const std::vector<std::byte> before = all_bytes(cache.layer(0), 0);
  cache.append(0, std::span(&fork, 1), 1, tensor(next_keys, shape, 1, 16), tensor(next_values, shape, 1, 16), pool);
  EXPECT_GT(cache.bytes().total(), one);
  EXPECT_LT(cache.bytes().total(), one + 2 * 32 * 32 + 2 * 32 + 1);  // the open chunks of one fork, and a token
  EXPECT_EQ(all_bytes(cache.layer(0), 0), before);
  EXPECT_EQ(cache.layer(0).tokens(0), 1000U);
  EXPECT_EQ(cache.layer(0).tokens(fork), 1001U);
  cache.remove(0);
  cache.remove(fork);
  EXPECT_EQ(cache.bytes().total(), 0U);
  EXPECT_EQ(cache.reserved_bytes(), 0U);
}

TEST(Grow, SequencesOfOneBatchDifferInLength) {
  ThreadPool pool(2);
  LayerShape shape = test::shape(3, 2, 4, 16, Dtype::f32);
  CacheManager cache(kivi(2, 9), std::span(&shape, 1));
  Model model(shape, 6);
  std::vector<Given> given(3);
  const std::vector<std::uint64_t> lengths{700, 1, 0};
  for (std::uint32_t i = 0; i < 3; ++i) {
    const auto keys = model.draw(lengths[i], 16, given[i].keys);
    const auto values = model.draw(lengths[i], 16, given[i].values);
    cache.prefill(0, i, {lengths[i], tensor(keys, shape, lengths[i], 16), tensor(values, shape, lengths[i], 16), {}},
                  pool);
  }
  const std::vector<std::uint32_t> order{2, 0, 1};
  const std::vector<std::uint32_t> positions{0, 699, 5};
  std::vector<float> queries;
  for (int i = 0; i < 3; ++i) {
    const auto own = model.queries(1);
    queries.insert(queries.end(), own.begin(), own.end());
  }
  std::vector<float> out(3 * 4 * 16, 1.0F);
  cache.attend(0, order, queries.data(), positions, out.data(), pool);
  for (std::size_t i = 0; i < 3; ++i) {
    const std::vector<float> own(queries.begin() + static_cast<std::ptrdiff_t>(i * 64),
                                 queries.begin() + static_cast<std::ptrdiff_t>((i + 1) * 64));
    const std::vector<float> got(out.begin() + static_cast<std::ptrdiff_t>(i * 64),
                                 out.begin() + static_cast<std::ptrdiff_t>((i + 1) * 64));
    const auto expected = reference(cache.layer(0), order[i], own, {positions[i]});
    if (order[i] == 2) {
      for (const float x : got) EXPECT_EQ(x, 0);
    } else {
      EXPECT_LT(test::relative(got, expected), test::attention_tolerance);
    }
  }
  std::vector<float> keys(3 * 2 * 700 * 16, 5.0F);
  std::vector<float> values(keys.size(), 5.0F);
  cache.decompress(0, keys.data(), values.data(), pool);
  EXPECT_EQ(keys[(2 * 2 + 0) * 700 * 16], 0);                    // the empty one
  EXPECT_EQ(keys[(1 * 2 + 0) * 700 * 16], given[1].keys[0][0]);  // a sink, raw
  EXPECT_EQ(keys[(1 * 2 + 0) * 700 * 16 + 16], 0);               // after its only token
}

TEST(Grow, ABudgetIsHardAndLosesNothing) {
  ThreadPool pool(2);
  LayerShape shape = test::shape(1, 2, 2, 16, Dtype::bf16);
  constexpr std::uint64_t budget = 200000;
  CacheManager cache(kivi(4, 64), std::span(&shape, 1), {budget});
  Model model(shape, 8);
  const std::uint32_t sequence = 0;
  bool refused = false;
  for (int step = 0; step < 20000 && !refused; ++step) {
    Given row;
    const auto keys = model.draw(3, 16, row.keys);
    const auto values = model.draw(3, 16, row.values);
    const std::uint64_t tokens = cache.layer(0).tokens(0);
    const std::vector<std::byte> before = all_bytes(cache.layer(0), 0);
    try {
      cache.append(0, std::span(&sequence, 1), 3, tensor(keys, shape, 3, 16), tensor(values, shape, 3, 16), pool);
    } catch (const BudgetError& error) {
      refused = true;
      EXPECT_NE(std::string(error.what()).find("budget of 200000 bytes"), std::string::npos) << error.what();
      EXPECT_EQ(cache.layer(0).tokens(0), tokens);
      EXPECT_EQ(all_bytes(cache.layer(0), 0), before);
    }
    ASSERT_LE(cache.reserved_bytes(), budget);
  }
  EXPECT_TRUE(refused);
  EXPECT_GT(cache.bytes().total(), budget * 8 / 10);
  cache.clear(0);
  EXPECT_EQ(cache.reserved_bytes(), 0U);
  Given rows;
  const auto keys = model.draw(9000, 16, rows.keys);
  const auto values = model.draw(9000, 16, rows.values);
  const Prefill large{9000, tensor(keys, shape, 9000, 16), tensor(values, shape, 9000, 16), {}};
  EXPECT_THROW(cache.prefill(0, large, pool), BudgetError);
  EXPECT_EQ(cache.reserved_bytes(), 0U);
  EXPECT_EQ(cache.layer(0).tokens(0), 0U);
}

// A window moves: its newest tokens and the sinks are there, little more, and memory is what it was at the start.
TEST(Grow, AWindowHoldsItsSizeOverManyTokens) {
#if defined(KVLAB_SANITIZED)
  constexpr std::uint64_t tokens = 5000;
#else
  constexpr std::uint64_t tokens = 100000;
#endif
  ThreadPool pool(1);
  LayerShape shape = test::shape(1, 1, 1, 16, Dtype::bf16);
  Pipeline window = kivi(4, 32);
  window.select = {{spec("sliding_window"), {512, 1}}};
  CacheManager cache(window, std::span(&shape, 1), {.decodes = true});
  Model model(shape, 9);
  Given given;
  const auto keys = model.draw(64, 16, given.keys);
  const auto values = model.draw(64, 16, given.values);
  const std::uint32_t sequence = 0;
  std::uint64_t warm = 0;
  std::vector<std::uint32_t> positions;
  for (std::uint64_t token = 0; token < tokens; ++token) {
    const auto from = [&](const std::vector<std::byte>& rows) {
      KvTensor one = tensor(rows, shape, 64, 16);
      one.base = rows.data() + token % 64 * 32;
      return one;
    };
    cache.append(0, std::span(&sequence, 1), 1, from(keys), from(values), pool);
    if (token == 2000) warm = cache.reserved_bytes();
    ASSERT_LE(cache.reserved_bytes(), token > 2000 ? warm + warm / 4 : UINT64_MAX) << token;
    if (token % 97 != 0) continue;
    const Head& head = cache.layer(0).head(0, 0);
    ASSERT_EQ(cache.bytes().total(), cache.requested_bytes());
    ASSERT_LT(head.kept(), 512U + 128U);
    if (token < 600) continue;
    head.positions.write_out(positions);
    std::erase_if(positions, [](std::uint32_t p) { return p >= evicted; });
    for (std::uint32_t i = 0; i < 4; ++i) ASSERT_EQ(positions[i], i);
    for (std::size_t i = 4; i < positions.size(); ++i) ASSERT_EQ(positions[i], token + 1 - positions.size() + i);
    ASSERT_GE(positions.size(), 512U);
  }
}

// Of many tokens with norms of their own the largest stay, whatever was evicted before.
TEST(Grow, AScoredBudgetKeepsTheHighest) {
  ThreadPool pool(1);
  LayerShape shape = test::shape(1, 1, 1, 16, Dtype::f32);
  for (const bool coded : {false, true}) {
    Pipeline pipeline = coded ? kivi(0, 0, "8") : Pipeline{};
    pipeline.select = {{spec("magnitude", {{"of", "keys"}}), {64, 1}}};
    CacheManager cache(pipeline, std::span(&shape, 1), {.decodes = true});
    std::vector<std::uint32_t> norms(3000);
    std::iota(norms.begin(), norms.end(), 1U);
    std::mt19937_64 engine(4);
    std::shuffle(norms.begin(), norms.end(), engine);
    const std::uint32_t sequence = 0;
    for (std::uint32_t token = 0; token < norms.size(); ++token) {
      std::vector<float> row(16, static_cast<float>(norms[token]));
      const KvTensor one{row.data(), 16, 16, 16};
      cache.append(0, std::span(&sequence, 1), 1, one, one, pool);
    }
    const Head& head = cache.layer(0).head(0, 0);
    std::vector<std::uint32_t> positions;
    head.positions.write_out(positions);
    std::erase_if(positions, [](std::uint32_t p) { return p >= evicted; });
    ASSERT_LT(positions.size(), 64U + 128U);
    std::size_t high = 0;
    for (const std::uint32_t p : positions) high += norms[p] > 3000 - 64 ? 1 : 0;
    EXPECT_EQ(high, 64U);  // the 64 largest of all are among what is left
    if (coded) {
      std::uint64_t blocks = 0;
      for (const auto& segment : head.keys) blocks += segment.encoded ? 1 : 0;
      EXPECT_LT(head.positions.tokens(), 2 * positions.size() + 64);  // at most half of a cell is dead
      EXPECT_GT(blocks, 0U);
    }
  }
}

TEST(Grow, WhatIsWrongIsRefused) {
  ThreadPool pool(1);
  LayerShape shape = test::shape(2, 1, 1, 8);
  Pipeline windowed;
  windowed.select = {{spec("sliding_window"), {8, 1}}};
  CacheManager cache(windowed, std::span(&shape, 1));
  const std::vector<float> row(8);
  const KvTensor one{row.data(), 8, 8, 8};
  const std::vector<std::uint32_t> first{0};
  EXPECT_THROW(cache.append(0, first, 1, one, one, pool), MethodError);
  CacheManager raw(Pipeline{}, std::span(&shape, 1));
  const std::vector<std::uint32_t> twice{0, 0};
  const std::vector<std::uint32_t> beyond{2};
  EXPECT_THROW(raw.append(0, twice, 1, one, one, pool), InputError);
  EXPECT_THROW(raw.append(0, beyond, 1, one, one, pool), InputError);
  std::vector<float> out(16);
  const std::vector<std::uint32_t> three{0, 1, 2};
  const std::vector<std::uint32_t> both{0, 1};
  EXPECT_THROW(raw.attend(0, both, row.data(), three, out.data(), pool), InputError);
  EXPECT_THROW(raw.attend(0, {}, row.data(), three, out.data(), pool), InputError);
  raw.remove(1);
  EXPECT_THROW(raw.fork(1), InputError);
  EXPECT_EQ(raw.add(), 1U);
  std::vector<LayerShape> uneven{test::shape(1, 1, 1, 8), test::shape(2, 1, 1, 8)};
  EXPECT_THROW(CacheManager(Pipeline{}, uneven), InputError);
}

}  // namespace
}  // namespace kvlab
