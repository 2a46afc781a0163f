// What a program that embeds the cache may get wrong: one sentence each, and the cache as it was.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "core/base/finite.hpp"
#include "core/cache/input.hpp"
#include "core/cache/manager.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

using test::Data;
using test::shape;
using test::spec;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

// What `call` was refused with; "" where it was not.
template <class Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

Pipeline int8() {
  Pipeline pipeline;
  pipeline.sinks = 1;
  pipeline.tail = 3;
  pipeline.keys = spec("quantize", {{"bits", "8"}});
  pipeline.values = spec("quantize", {{"bits", "8"}, {"scales", "per_channel"}});
  return pipeline;
}

Pipeline scored(const std::string& selector) {
  Pipeline pipeline = int8();
  pipeline.select = {{spec(selector), {std::nullopt, 0.5}}};
  return pipeline;
}

// Two sequences of 200 tokens in two layers, and what must not change by a call that is refused.
class Caller : public testing::Test {
 protected:
  explicit Caller(const Pipeline& pipeline = int8()) : cache_(pipeline, layers_, test::backend(), {.decodes = true}) {
    for (std::size_t layer = 0; layer < 2; ++layer) cache_.prefill(layer, data_.prefill());
    before_ = outputs();
  }

  std::vector<float> outputs() {
    std::vector<float> out(2 * 4 * data_.judged_positions.size() * 16);
    cache_.layer(0).attend(data_.judged(), out.data());
    return out;
  }

  void expect_refused(const std::function<void()>& call, const std::string& sentence) {
    const std::string refused = refusal(call);
    EXPECT_NE(refused.find(sentence), std::string::npos) << "'" << refused << "' is not '" << sentence << "'";
    EXPECT_EQ(cache_.layer(0).tokens(0), 200U);
    EXPECT_EQ(cache_.layer(0).tokens(1), 200U);
    EXPECT_EQ(outputs(), before_) << sentence;
  }

  void attend(const std::vector<std::uint32_t>& sequences, std::uint64_t count, const float* queries,
              const std::vector<std::uint32_t>& positions, float* out) {
    const LayerShape& shape = layers_.front();
    cache_.attend(0, sequences, QueryTensor::contiguous(shape, sequences.size(), count, queries, positions), out);
  }

  std::vector<LayerShape> layers_{2, shape(2, 2, 4, 16, Dtype::bf16)};
  Data data_{shape(2, 2, 4, 16, Dtype::bf16), 200};
  Prefill good_ = data_.prefill();
  std::vector<std::uint32_t> both_{0, 1};
  CacheManager cache_;
  std::vector<float> before_;
};

TEST_F(Caller, NamesALayerOrASequenceThatIsNotThere) {
  expect_refused([&] { cache_.prefill(2, good_); }, "there is no layer 2; valid: 0 .. 1");
  expect_refused([&] { (void)std::as_const(cache_).layer(9); }, "there is no layer 9; valid: 0 .. 1");
  expect_refused([&] { cache_.prefill(0, 2, good_); }, "layer 0: there is no sequence 2; valid: 0 .. 1");
  expect_refused([&] { cache_.clear(7); }, "there is no sequence 7; valid: 0 .. 1");
  expect_refused([&] { cache_.remove(7); }, "there is no sequence 7");
  expect_refused([&] { (void)cache_.fork(7); }, "there is no sequence 7");
  expect_refused([&] { (void)cache_.layer(0).head(0, 2); }, "there is no KV head 2; valid: 0 .. 1");
  const std::uint32_t third = cache_.add();
  cache_.remove(third);
  const std::vector<std::uint32_t> gone{third};
  expect_refused([&] { cache_.append(0, gone, good_.keys, good_.values); }, "there is no sequence 2: it was removed");
  EXPECT_EQ(refusal([&] { CacheManager(int8(), {}, test::backend()); }), "there are no layers; valid: from 1");
  EXPECT_EQ(refusal([&] { LayerCache(int8(), layers_[0], nullptr); }), "a layer's memory is null");
}

TEST_F(Caller, GivesTensorsThatAreNone) {
  for (const char* role : {"keys", "values"}) {
    const bool is_keys = std::string(role) == "keys";
    const auto with = [&](const auto& change) {
      Prefill changed = good_;
      change(is_keys ? changed.keys : changed.values);
      return changed;
    };
    const std::string what = std::string("layer 0: ") + role;
    const auto both_ways = [&](const Prefill& wrong, const std::string& sentence) {
      expect_refused([&] { cache_.prefill(0, wrong); }, what + sentence);
      expect_refused([&] { cache_.append(0, both_, wrong.keys, wrong.values); }, what + sentence);
    };
    both_ways(with([](KvTensor& t) { t.base = nullptr; }), " have no base (null), and there are 200 tokens");
    both_ways(with([](KvTensor& t) { t.base = static_cast<const std::byte*>(t.base) + 1; }),
              " are at an address that is not a multiple of the 2 bytes of bf16");
    both_ways(with([](KvTensor& t) { t.dtype = Dtype::f16; }), ": dtype is f16; valid: bf16");
    both_ways(with([](KvTensor& t) { t.sequences = 3; }), ": sequences is 3; valid: 2");
    both_ways(with([](KvTensor& t) { t.kv_heads = 4; }), ": kv_heads is 4; valid: 2");
    both_ways(with([](KvTensor& t) { t.channels = 8; }), ": channels is 8; valid: 16");
    const Prefill many = with([](KvTensor& t) { t.tokens = (std::uint64_t{1} << 31) + 1; });
    expect_refused([&] { cache_.prefill(0, many); }, what + ": tokens is 2147483649; valid: 0 .. 2^31");
    both_ways(with([](KvTensor& t) { t.token_stride = 15; }), ": token_stride is 15; valid: from 16 elements");
    both_ways(with([](KvTensor& t) { t.token_stride = -16; }), ": token_stride is -16; valid: from 16 elements");
    both_ways(with([](KvTensor& t) { t.head_stride = 16; }), ": token_stride is 16; valid: from 32 elements");
    both_ways(with([](KvTensor& t) { t.sequence_stride = 0; }), ": sequence_stride is 0; valid: from 16 elements");
    both_ways(with([](KvTensor& t) { t.sequence_stride = 6399; }), ": sequence_stride is 6399; valid: from 6400");
    both_ways(with([](KvTensor& t) { t.sequence_stride = std::int64_t{1} << 62; }),
              ": sequence_stride is 4611686018427387904; valid: what fits the address space");
  }
  Prefill fewer = good_;
  fewer.values = fewer.values.slice(0, 199);
  expect_refused([&] { cache_.prefill(0, fewer); }, "layer 0: values: tokens is 199; valid: 200");
}

TEST_F(Caller, GivesListsOfSequencesThatAreNone) {
  const std::vector<std::uint32_t> twice{1, 1};
  expect_refused([&] { cache_.append(0, {}, good_.keys, good_.values); },
                 "layer 0: append names no sequence; valid: from 1");
  expect_refused([&] { cache_.append(0, twice, good_.keys, good_.values); },
                 "layer 0: sequence 1 is named twice; valid: once per append");
}

TEST_F(Caller, GivesQueriesThatAreNone) {
  std::vector<float> queries(2 * 4 * 2 * 16, 1.0F);
  std::vector<float> out(queries.size());
  const auto* rows = queries.data();
  expect_refused([&] { attend({}, 1, rows, {5}, out.data()); }, "attend names no sequence; valid: from 1");
  expect_refused([&] { attend(both_, 0, rows, {}, out.data()); },
                 "queries: there are none; valid: from 1 per query head");
  expect_refused([&] { attend(both_, 2, rows, {1, 2, 3}, out.data()); },
                 "3 positions of 2 queries of 2 sequences; valid: one per query, or per query of each sequence");
  expect_refused([&] { attend({0, 5}, 1, rows, {1, 2}, out.data()); }, "there is no sequence 5");
  expect_refused([&] { attend(both_, 1, nullptr, {1, 2}, out.data()); }, "queries have no base (null)");
  expect_refused([&] { attend(both_, 1, rows, {1, 2}, nullptr); }, "there is nowhere to write the outputs");
  expect_refused([&] { attend(both_, 2, rows, {5, 6, 7, 6}, out.data()); },
                 "position 6 comes after 7; valid: ascending in each sequence");
  expect_refused([&] { attend(both_, 2, rows, {6, 5}, out.data()); }, "position 5 comes after 6");
  expect_refused([&] { attend(both_, 1, rows, {5, evicted}, out.data()); }, "position 2147483648; valid: below 2^31");
  for (const auto& [change, sentence] : std::vector<std::pair<void (*)(QueryTensor&), std::string>>{
           {[](QueryTensor& q) { q.sequences = 1; }, "queries: sequences is 1; valid: 2"},
           {[](QueryTensor& q) { q.query_heads = 2; }, "queries: query_heads is 2; valid: 4"},
           {[](QueryTensor& q) { q.channels = 17; }, "queries: channels is 17; valid: 16"}}) {
    const std::vector<std::uint32_t> positions{5, 6};
    QueryTensor wrong = QueryTensor::contiguous(layers_.front(), 2, 2, rows, positions);
    change(wrong);
    expect_refused([&] { cache_.attend(0, both_, wrong, out.data()); }, sentence);
  }
  queries[((1 * 4 + 3) * 2 + 1) * 16 + 9] = nan;
  expect_refused([&] { attend(both_, 2, rows, {5, 6, 6, 7}, out.data()); },
                 "queries of sequence 1 of the call, query head 3, query 1: NaN; valid: finite numbers");
  EXPECT_NE(refusal([&] { cache_.decompress(0, nullptr, out.data()); }).find("nowhere to write"), std::string::npos);
}

TEST_F(Caller, AppendsWhatIsNotFinite) {
  for (const std::uint64_t tokens : {std::uint64_t{1}, std::uint64_t{200}}) {
    for (const float wrong : {nan, infinity, -infinity}) {
      const char* name = std::isnan(wrong) ? "NaN" : "infinity";
      for (const bool is_keys : {true, false}) {
        Data other = data_;
        std::vector<float> rows = is_keys ? other.keys : other.values;
        rows[((1 * 2 + 1) * 200 + tokens - 1) * 16 + 11] = wrong;
        is_keys ? other.set_keys(rows) : other.set_values(rows);
        const Prefill from = other.prefill();
        expect_refused([&] { cache_.append(0, both_, from.keys.slice(0, tokens), from.values.slice(0, tokens)); },
                       std::string("layer 0: ") + (is_keys ? "keys" : "values") + " of sequence 1, KV head 1, token " +
                           std::to_string(tokens - 1) + ", channel 11 of the tensor: " + name +
                           "; valid: finite numbers");
      }
    }
  }
}

// Keys and values of a prefill are looked at as they are read: what was there is gone, and nothing else is.
TEST(CallerPrefill, WithWhatIsNotFiniteLeavesTheSequenceEmpty) {
  Pipeline low_rank;
  low_rank.keys = low_rank.values = spec("low_rank", {{"rank", "8"}});
  Pipeline kivi = int8();
  kivi.keys = kivi.values = spec("quantize", {{"bits", "3"}, {"symmetric", "false"}, {"scales", "per_channel"}});
  const std::vector<std::pair<std::string, Pipeline>> pipelines{{"raw", {}},
                                                                {"low_rank", low_rank},
                                                                {"kivi", kivi},
                                                                {"int8", int8()},
                                                                {"magnitude", scored("magnitude")},
                                                                {"attention_score", scored("attention_score")}};
  for (const auto& [name, pipeline] : pipelines) {
    for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
      for (const std::uint64_t token : {0U, 199U, 700U, 999U}) {
        for (const bool is_keys : {true, false}) {
          // magnitude keeps the largest keys, the others what they like: a value is met where its token is kept.
          if (!is_keys && !pipeline.select.empty() && token != 0 && token != 999) continue;
          SCOPED_TRACE(name + ", " + name_of(dtype) + ", token " + std::to_string(token) +
                       (is_keys ? ", keys" : ", values"));
          Data data(shape(1, 2, 4, 16, dtype), 1000);
          LayerCache cache(pipeline, data.shape, test::memory());
          cache.prefill(data.prefill());
          std::vector<float> rows = is_keys ? data.keys : data.values;
          const float wrong = token == 199 ? infinity : nan;
          rows[(1000 + token) * 16 + 3] = wrong;
          is_keys ? data.set_keys(rows) : data.set_values(rows);
          EXPECT_EQ(refusal([&] { cache.prefill(data.prefill()); }),
                    std::string("layer 0: ") + (is_keys ? "keys" : "values") + " of sequence 0, KV head 1, token " +
                        std::to_string(token) + ", channel 3 of the tensor: " + (token == 199 ? "infinity" : "NaN") +
                        "; valid: finite numbers");
          EXPECT_EQ(cache.tokens(0), 0U);
          EXPECT_EQ(cache.bytes().total(), 0U);
        }
      }
    }
  }
}

TEST(CallerPrefill, NeedsTheQueriesThatASelectorReads) {
  Data data(shape(1, 2, 4, 16), 100);
  LayerCache cache(scored("attention_score"), data.shape, test::memory());
  Prefill input = data.prefill();
  const auto refused = [&] { return refusal([&] { cache.prefill(input); }); };
  EXPECT_EQ(refused(), "");
  input.observed = {};
  EXPECT_EQ(refused(), "layer 0: observed queries: there are none; valid: from 1 per query head");
  input.observed = data.observed();
  input.observed.base = nullptr;
  EXPECT_NE(refused().find("observed queries have no base (null)"), std::string::npos);
  input = data.prefill();
  std::swap(data.observed_positions[0], data.observed_positions[1]);
  EXPECT_NE(refused().find("observed queries: position 96 comes after 97"), std::string::npos) << refused();
  EXPECT_EQ(cache.tokens(0), 100U);
  Pipeline small = scored("magnitude");
  small.select[0].budget = {3, 1};
  LayerCache below(small, data.shape, test::memory());
  EXPECT_NE(refusal([&] { below.prefill(data.prefill()); }).find("below sinks + tail = 4"), std::string::npos);
}

TEST(CallerPipeline, IsRefusedWhereAMethodIsNone) {
  const auto refused = [](const Pipeline& pipeline) {
    return refusal([&] { LayerCache(pipeline, shape(1, 1, 1, 16), test::memory()); });
  };
  Pipeline pipeline = int8();
  pipeline.keys->method = nullptr;
  EXPECT_EQ(refused(pipeline), "a codec has no method (null); valid: one of a registry's");
  pipeline.keys = spec("magnitude");
  EXPECT_EQ(refused(pipeline), "'magnitude' is a selector, and a codec stands here");
  pipeline = int8();
  pipeline.select = {{spec("quantize"), {10, 1}}};
  EXPECT_EQ(refused(pipeline), "'quantize' is a codec, and a selector stands here");
  const Registry described = Registry::described({std::filesystem::path(KVLAB_BINARY_DIR) / "methods" / "quantize.so"});
  pipeline = int8();
  pipeline.keys->method = described.find("quantize");
  EXPECT_EQ(refused(pipeline),
            "'quantize' is only described and has no functions; valid: one of a registry that loads");
  pipeline = int8();
  pipeline.values->values.pop_back();
  EXPECT_NE(refused(pipeline).find("quantize is given"), std::string::npos) << refused(pipeline);
  EXPECT_NE(refused(pipeline).find("in this order: bits, "), std::string::npos) << refused(pipeline);
  pipeline.values->values.clear();
  EXPECT_NE(refused(pipeline).find("quantize is given 0 values"), std::string::npos);
  pipeline = int8();
  pipeline.values->values.push_back({.i = 0});
  EXPECT_NE(refused(pipeline).find("quantize is given"), std::string::npos);
  pipeline = int8();
  pipeline.values->values[0].i = 7;
  EXPECT_NE(refused(pipeline).find("quantize: bits is 7; the nearest valid value is "), std::string::npos)
      << refused(pipeline);
  pipeline = int8();
  pipeline.tail = std::numeric_limits<std::uint64_t>::max();
  EXPECT_NE(refused(pipeline).find("valid: 0 .. 2^31 each"), std::string::npos);
  for (const double keep : {0.0, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    pipeline = scored("magnitude");
    pipeline.select[0].budget.keep = keep;
    EXPECT_NE(refused(pipeline).find("; valid: above 0 and at most 1"), std::string::npos);
  }
}

TEST(CallerShape, IsRefusedWhereItIsNone) {
  const auto refused = [](const auto& change) {
    LayerShape wrong = shape(1, 1, 1, 16);
    change(wrong);
    return refusal([&] { LayerCache(Pipeline{}, wrong, test::memory()); });
  };
  EXPECT_EQ(refused([](LayerShape& s) { s.dtype = static_cast<Dtype>(7); }), "dtype is 7; valid: f32, f16, bf16");
  EXPECT_EQ(refused([](LayerShape& s) { s.rope_style = static_cast<RopeStyle>(9); }),
            "rope_style is 9; valid: none, half, interleaved");
  EXPECT_EQ(refused([](LayerShape& s) { s.attention_scale = nan; }), "attention_scale is nan; valid: a finite number");
  EXPECT_EQ(refused([](LayerShape& s) { s.inv_freq.assign(9, 1.0); }),
            "inv_freq has 9 entries; valid: at most half of the 16 channels of a key");
  EXPECT_EQ(refused([](LayerShape& s) { s.inv_freq = {infinity}; }), "inv_freq has inf; valid: finite numbers");
  EXPECT_EQ(refused([](LayerShape& s) { s.kv_heads = 0; }), "kv_heads is 0; valid: 1 .. 65536");
  EXPECT_EQ(refused([](LayerShape& s) { s.query_heads = 0; }), "query_heads is 0; valid: 1 .. 65536");
}

// Wherever it stands, and whatever its bits.
TEST(AllFinite, FindsEachNumberThatIsNot) {
  for (const std::size_t count : {1U, 2U, 15U, 16U, 17U, 63U, 64U, 65U, 200U}) {
    for (std::size_t at = 0; at < count; ++at) {
      for (const std::uint32_t bits : {0x7F800000U, 0xFF800000U, 0x7F800001U, 0x7FC00000U, 0xFFFFFFFFU}) {
        std::vector<float> numbers(count, -std::numeric_limits<float>::max());
        ASSERT_TRUE(all_finite(Dtype::f32, numbers.data(), count));
        numbers[at] = std::bit_cast<float>(bits);
        ASSERT_FALSE(all_finite(Dtype::f32, numbers.data(), count));
      }
      for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
        const std::uint32_t exponent = dtype == Dtype::f16 ? 0x7C00U : 0x7F80U;
        for (const std::uint32_t bits : {exponent, exponent | 0x8000U, exponent + 1, 0xFFFFU}) {
          std::vector<std::uint16_t> numbers(count, static_cast<std::uint16_t>(0x8000U | (exponent - 1)));
          ASSERT_TRUE(all_finite(dtype, numbers.data(), count));
          numbers[at] = static_cast<std::uint16_t>(bits);
          ASSERT_FALSE(all_finite(dtype, numbers.data(), count));
        }
      }
    }
  }
  EXPECT_TRUE(all_finite(Dtype::bf16, nullptr, 0));
}

// Two methods may use the same number for a key.
TEST(State, IsSharedWithinAMethodAlone) {
  const Registry plugins({std::filesystem::path(KVLAB_BINARY_DIR) / "tests" / "plugins"});
  const std::vector<LayerShape> layers{2, shape(1, 1, 1, 16)};
  const auto state = [&](const char* id, std::int64_t bytes, int key) {
    return method_spec(plugins, MethodKind::codec, id, {{"bytes", bytes}, {"key", key}});
  };
  const auto counted = [&](const MethodSpec& keys, const MethodSpec& values) {
    Pipeline pipeline;
    pipeline.keys = keys;
    pipeline.values = values;
    return CacheManager(pipeline, layers, test::backend()).bytes().bases;
  };
  const std::int64_t large = 1 << 20;
  EXPECT_EQ(counted(state("state_a", 72, 1), state("state_b", large, 1)), 72U + (1U << 20));
  EXPECT_EQ(counted(state("state_b", large, 1), state("state_a", 72, 1)), 72U + (1U << 20));
  EXPECT_EQ(counted(state("state_a", 72, 1), state("state_a", 72, 1)), 72U);
  EXPECT_EQ(counted(state("state_a", 72, 1), state("state_a", 80, 2)), 152U);
  EXPECT_EQ(counted(state("state_a", 72, 0), state("state_a", 72, 0)), 4 * 72U);
  const MethodSpec rotated = method_spec(plugins, MethodKind::codec, "rotated", {});
  EXPECT_EQ(counted(rotated, rotated), 512U);  // one matrix for keys and values of all layers
}

}  // namespace
}  // namespace kvlab
