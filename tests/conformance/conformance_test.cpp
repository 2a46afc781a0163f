// What every method must do, whatever it is: run over all that the search path holds. A method dropped into methods/
// is tested here with no line written; KVLAB_PLUGIN_PATH adds others.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "core/base/error.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

// Defaults, and each parameter on its own at the ends of its range and at each choice.
std::vector<MethodSpec> settings(const Method& method) {
  MethodSpec defaults{&method, {}};
  for (const auto& parameter : method.parameters) defaults.values.push_back(parameter.default_value);
  std::vector<MethodSpec> all{defaults};
  const auto add = [&](std::size_t index, kvlab_value value) {
    all.push_back(defaults);
    all.back().values[index] = value;
  };
  const auto integer = [](std::int64_t i) {
    kvlab_value value{};
    value.i = i;
    return value;
  };
  for (std::size_t p = 0; p < method.parameters.size(); ++p) {
    const Parameter& parameter = method.parameters[p];
    switch (parameter.type) {
      case ParameterType::boolean:
        for (const int flag : {0, 1}) add(p, integer(flag));
        break;
      case ParameterType::choice:
        for (std::size_t c = 0; c < parameter.choices.size(); ++c) add(p, integer(static_cast<std::int64_t>(c)));
        break;
      case ParameterType::integer:
        for (const auto value : parameter.integers) add(p, integer(value));
        if (parameter.integers.empty()) {
          for (const auto value : {parameter.minimum, parameter.maximum}) add(p, value);
        }
        break;
      case ParameterType::real:
        for (const auto value : {parameter.minimum, parameter.maximum}) add(p, value);
        break;
    }
  }
  return all;
}

struct Scratch {
  Buffer buffer;
  void* of(std::uint64_t bytes) { return buffer.ensure<std::byte>(bytes); }
};

// An encoded block with its memory, and guards behind what was promised not to be touched.
struct Encoded {
  Buffer memory;
  kvlab_block block{};
  std::vector<std::uint8_t> bytes() const { return {block.bytes, block.bytes + block.size}; }
};

class CodecCheck {
 public:
  CodecCheck(const MethodSpec& spec, const LayerShape& shape, std::uint32_t role)
      : codec_(spec, shape.describe(role)),
        shape_(shape),
        channels_(role == KVLAB_ROLE_KEYS ? shape.head_dim_keys : shape.head_dim_values) {}

  void run(std::uint64_t tokens, std::uint64_t seed) {
    const test::Data data(shape_, tokens, 1, seed);
    const kvlab_view view{data.stored_keys.data(),
                          static_cast<kvlab_dtype>(shape_.dtype),
                          1,
                          tokens,
                          channels_,
                          static_cast<std::int64_t>(tokens * channels_),
                          static_cast<std::int64_t>(channels_)};
    Encoded block;
    encode(view, block);
    const std::vector<float> rows = decode(block.block, 0, tokens);
    for (const float x : rows) ASSERT_TRUE(std::isfinite(x));
    partial_decodes(block.block, rows);
    Encoded streamed;
    encode(view, streamed, KVLAB_PAST_CACHES);
    EXPECT_EQ(streamed.bytes(), block.bytes());
    repeats(view, block, rows);
    strides(view, block);
    attends(block.block, rows);
    if (codec_.gathers()) gathers(block.block, rows);
  }

  [[nodiscard]] const CodecInstance& codec() const { return codec_; }

 private:
  void encode(const kvlab_view& view, Encoded& out, std::uint32_t flags = 0) {
    constexpr std::size_t guard = 64;
    Scratch scratch;
    kvlab_encode_in in{};
    in.struct_size = sizeof in;
    in.view = view;
    in.scratch = scratch.of(codec_.traits().encode_scratch);
    kvlab_encode_out result{};
    result.struct_size = sizeof result;
    result.flags = flags;
    result.capacity = codec_.bound(view.tokens);
    result.bytes = out.memory.ensure<std::uint8_t>(result.capacity + std::max<std::uint64_t>(guard, KVLAB_READABLE));
    std::memset(result.bytes, 0xA5, result.capacity + guard);
    codec_.encode(in, result);
    for (std::size_t i = 0; i < guard; ++i) ASSERT_EQ(result.bytes[result.capacity + i], 0xA5);
    out.block.struct_size = sizeof out.block;
    out.block.heads = 1;
    out.block.bytes = result.bytes;
    out.block.size = result.size;
    out.block.tokens = view.tokens;
  }

  std::vector<float> decode(const kvlab_block& block, std::uint64_t first, std::uint64_t count) {
    Scratch scratch;
    const std::uint64_t stride = channels_ + 3;  // rows apart: what lies between is not the codec's
    std::vector<float> spaced(count * stride, 1234.5F);
    codec_.decode(block, first, count, spaced.data(), stride, scratch.of(codec_.traits().decode_scratch));
    std::vector<float> rows;
    for (std::uint64_t t = 0; t < count; ++t) {
      for (std::uint64_t c = 0; c < stride; ++c) {
        const float x = spaced[t * stride + c];
        if (c < channels_) {
          rows.push_back(x);
        } else {
          EXPECT_EQ(x, 1234.5F);
        }
      }
    }
    return rows;
  }

  void partial_decodes(const kvlab_block& block, const std::vector<float>& rows) {
    const std::uint64_t granule = codec_.traits().decode_granule;
    for (std::uint64_t first = 0; first < block.tokens;
         first += granule * std::max<std::uint64_t>(1, block.tokens / 5)) {
      for (const std::uint64_t wanted : {granule, 3 * granule, block.tokens}) {
        const std::uint64_t count = std::min(wanted, block.tokens - first);
        const std::vector<float> part = decode(block, first, count);
        ASSERT_TRUE(std::equal(part.begin(), part.end(), rows.begin() + static_cast<std::ptrdiff_t>(first * channels_)))
            << "tokens " << first << " + " << count;
      }
    }
  }

  // The same bytes again, also from four threads at once on one instance.
  void repeats(const kvlab_view& view, const Encoded& block, const std::vector<float>& rows) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        Encoded again;
        encode(view, again);
        EXPECT_EQ(again.bytes(), block.bytes());
        EXPECT_EQ(decode(again.block, 0, view.tokens), rows);
      });
    }
    for (auto& thread : threads) thread.join();
  }

  // Rows that lie apart encode to the same bytes.
  void strides(const kvlab_view& view, const Encoded& block) {
    const std::size_t element = size_of(shape_.dtype);
    const std::size_t apart = channels_ + 5;
    std::vector<std::byte> memory(view.tokens * apart * element, std::byte{0x7F});  // NaN between the rows
    for (std::uint64_t t = 0; t < view.tokens; ++t) {
      std::memcpy(memory.data() + t * apart * element,
                  static_cast<const std::byte*>(view.base) + t * channels_ * element, channels_ * element);
    }
    kvlab_view spaced = view;
    spaced.base = memory.data();
    spaced.token_stride = static_cast<std::int64_t>(apart);
    Encoded again;
    encode(spaced, again);
    EXPECT_EQ(again.bytes(), block.bytes());
  }

  // What is left of a block decodes to the rows that were kept, and nothing is written behind its bound.
  void gathers(const kvlab_block& block, const std::vector<float>& rows) {
    for (const std::uint32_t step : {1U, 2U, 5U}) {
      std::vector<std::uint32_t> keep;
      for (std::uint32_t t = step - 1; t < block.tokens; t += step) keep.push_back(t);
      if (keep.empty()) continue;
      Scratch scratch;
      Encoded left;
      kvlab_encode_out out{};
      out.struct_size = sizeof out;
      out.capacity = codec_.bound(keep.size());
      out.bytes = left.memory.ensure<std::uint8_t>(out.capacity + KVLAB_READABLE);
      std::memset(out.bytes, 0xA5, out.capacity + KVLAB_READABLE);
      if (!codec_.gather(block, keep, out, scratch.of(codec_.traits().encode_scratch))) continue;
      for (std::size_t i = 0; i < KVLAB_READABLE; ++i) ASSERT_EQ(out.bytes[out.capacity + i], 0xA5);
      kvlab_block part = block;
      part.bytes = out.bytes;
      part.size = out.size;
      part.tokens = keep.size();
      const std::vector<float> got = decode(part, 0, keep.size());
      for (std::size_t i = 0; i < keep.size(); ++i) {
        for (std::uint64_t c = 0; c < channels_; ++c) {
          ASSERT_EQ(got[i * channels_ + c], rows[keep[i] * channels_ + c]) << "token " << keep[i];
        }
      }
    }
  }

  // Scores and accumulated values are those of the decoded rows.
  void attends(const kvlab_block& block, const std::vector<float>& rows) {
    constexpr std::uint64_t queries = 3;
    const test::Data data(test::shape(1, 1, 1, static_cast<std::uint32_t>(channels_)), queries, 0, 5);
    const std::vector<float>& q = data.keys;  // any rows will do
    Scratch scratch;
    void* work = scratch.of(codec_.traits().attend_scratch);
    const std::uint64_t stride = block.tokens + 1;
    if (codec_.attends_keys()) {
      Buffer prepared;
      void* own = prepared.ensure<std::byte>(codec_.prepared_bytes(queries));
      codec_.prepare(0, q.data(), queries, own, work);
      std::vector<float> scores(queries * stride, 9.0F);
      codec_.scores(own, queries, block, 0, block.tokens, scores.data(), stride, work);
      std::vector<float> got;
      std::vector<double> expected;
      for (std::uint64_t i = 0; i < queries; ++i) {
        EXPECT_EQ(scores[i * stride + block.tokens], 9.0F);
        for (std::uint64_t t = 0; t < block.tokens; ++t) {
          double sum = 0;
          for (std::uint64_t c = 0; c < channels_; ++c)
            sum += static_cast<double>(q[i * channels_ + c]) * rows[t * channels_ + c];
          expected.push_back(sum);
          got.push_back(scores[i * stride + t]);
        }
      }
      EXPECT_LT(test::relative(got, expected), test::attention_tolerance);
    }
    if (codec_.attends_values()) {
      const std::uint64_t width = codec_.width();
      Buffer memory;
      float* accumulator = memory.ensure<float>(queries * width);
      std::fill_n(accumulator, queries * width, 0.0F);
      std::vector<float> weights(queries * stride);
      for (std::uint64_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i % 7) / 7;
      codec_.accumulate(weights.data(), queries, stride, block, 0, block.tokens, accumulator, work);
      std::vector<float> got(queries * channels_);
      codec_.finish(0, accumulator, queries, got.data(), work);
      std::vector<double> expected(got.size());
      for (std::uint64_t i = 0; i < queries; ++i) {
        for (std::uint64_t t = 0; t < block.tokens; ++t) {
          for (std::uint64_t c = 0; c < channels_; ++c) {
            expected[i * channels_ + c] += static_cast<double>(weights[i * stride + t]) * rows[t * channels_ + c];
          }
        }
      }
      EXPECT_LT(test::relative(got, expected), test::attention_tolerance);
    }
  }

  CodecInstance codec_;
  LayerShape shape_;
  std::uint64_t channels_;
};

// A method may say that a setting or shape is not for it; anything else that it throws is a failure.
template <class Check>
void unless_refused(Check&& check) {
  try {
    check();
  } catch (const MethodError& error) {
    EXPECT_TRUE(error.status == KVLAB_UNSUPPORTED || error.status == KVLAB_INVALID_ARGUMENT) << error.what();
  }
}

TEST(Conformance, EveryCodec) {
  std::size_t codecs = 0;
  for (const auto& method : test::registry().methods()) {
    if (method.kind != MethodKind::codec) continue;
    ++codecs;
    for (const auto& setting : settings(method)) {
      std::string text = method.id;
      for (std::size_t p = 0; p < method.parameters.size(); ++p) {
        text += " " + method.parameters[p].name + "=" + text_of(method.parameters[p], setting.values[p]);
      }
      SCOPED_TRACE(text);
      for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
        const std::uint32_t head_dim = dtype == Dtype::bf16 ? 128 : dtype == Dtype::f16 ? 33 : 80;
        const std::uint32_t role = dtype == Dtype::f16 ? KVLAB_ROLE_VALUES : KVLAB_ROLE_KEYS;
        unless_refused([&] {
          CodecCheck check(setting, test::shape(1, 1, 1, head_dim, dtype), role);
          const std::uint64_t block = std::min<std::uint64_t>(check.codec().traits().block_tokens, 300);
          for (const std::uint64_t tokens : {std::uint64_t{1}, std::min<std::uint64_t>(block, 37), block})
            check.run(tokens, tokens);
        });
      }
    }
  }
  EXPECT_GE(codecs, 2U);
}

TEST(Conformance, EverySelector) {
  std::size_t selectors = 0;
  ThreadPool pool(3);
  for (const auto& method : test::registry().methods()) {
    if (method.kind != MethodKind::selector) continue;
    ++selectors;
    SCOPED_TRACE(method.id);
    for (const auto& setting : settings(method)) {
      for (const std::uint64_t tokens : {1U, 5U, 200U}) {
        for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
          unless_refused([&] {
            const test::Data data(test::shape(2, 2, 4, 24, dtype), tokens, 3, tokens);
            Pipeline pipeline;
            pipeline.select = {{setting, {std::nullopt, 0.5}}, {setting, {std::nullopt, 0.5}}};
            LayerCache first(pipeline, data.shape);
            LayerCache second(pipeline, data.shape);
            first.prefill(data.prefill(), pool);
            second.prefill(data.prefill(), pool);
            std::vector<std::uint32_t> scratch;
            for (std::uint64_t s = 0; s < 2; ++s) {
              for (std::uint32_t h = 0; h < 2; ++h) {
                ASSERT_EQ(first.head(s, h).positions.tokens(), pipeline.kept_of(tokens));
                for (std::uint64_t t = 0; t < first.head(s, h).positions.tokens(); ++t) {
                  ASSERT_EQ(first.head(s, h).positions.range(t, 1, scratch).first,
                            second.head(s, h).positions.range(t, 1, scratch).first);
                }
              }
            }
          });
        }
      }
    }
  }
  EXPECT_GE(selectors, 4U);
}

}  // namespace
}  // namespace kvlab
