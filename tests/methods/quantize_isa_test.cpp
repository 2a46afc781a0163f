// quantize with every instruction set that this machine has, against its long-hand code on the same bytes: what is
// encoded and decoded is equal to the last bit, attention on the bytes within the tolerance.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/base/memory.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

struct Setting {
  std::string bits;
  std::string symmetric;
  std::string scales;
  std::string group;
  std::string scale_dtype;
  Dtype dtype;
  std::uint32_t head_dim;

  [[nodiscard]] std::string text() const {
    return "bits " + bits + ", symmetric " + symmetric + ", " + scales + ", group " + group + ", " + scale_dtype +
           ", " + name_of(dtype) + ", head_dim " + std::to_string(head_dim);
  }
};

CodecInstance make(const Setting& s, std::uint32_t role, Isa isa) {
  const test::ForcedIsa forced(isa);
  return CodecInstance(test::spec("quantize", {{"bits", s.bits},
                                               {"symmetric", s.symmetric},
                                               {"scales", s.scales},
                                               {"group", s.group},
                                               {"scale_dtype", s.scale_dtype}}),
                       test::shape(1, 1, 1, s.head_dim, s.dtype).describe(role));
}

struct Bytes64 {
  Buffer memory;
  std::uint64_t size = 0;
};

void encode(const CodecInstance& codec, const kvlab_view& view, Bytes64& out, std::uint32_t flags = 0) {
  Buffer scratch;
  kvlab_encode_in in{};
  in.struct_size = sizeof in;
  in.view = view;
  in.scratch = scratch.ensure<std::byte>(codec.traits().encode_scratch);
  kvlab_encode_out result{};
  result.struct_size = sizeof result;
  result.flags = flags;
  result.capacity = codec.bound(view.tokens);
  result.bytes = out.memory.ensure<std::uint8_t>(result.capacity + KVLAB_READABLE);
  std::memset(result.bytes, 0xFF, result.capacity + KVLAB_READABLE);
  codec.encode(in, result);
  out.size = result.size;
}

std::vector<float> decode(const CodecInstance& codec, const kvlab_block& block, std::uint64_t first,
                          std::uint64_t count, std::uint64_t channels) {
  Buffer scratch;
  std::vector<float> rows(count * channels);
  codec.decode(block, first, count, rows.data(), channels, scratch.ensure<std::byte>(codec.traits().decode_scratch));
  return rows;
}

// |got - expected| against the sum of the magnitudes that were added up: where they cancel, what is left is small and
// its own error says nothing.
double error_of(const std::vector<float>& got, const std::vector<double>& expected, const std::vector<double>& sizes) {
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    size += sizes[i] * sizes[i];
  }
  return error == 0 ? 0 : std::sqrt(error / size);
}

// Of tokens [first, first + count): q . k̂ and the weighted sum of the decoded rows, in f64.
void attends(const CodecInstance& codec, const kvlab_block& block, const std::vector<float>& all, std::uint64_t first,
             std::uint64_t count, std::uint64_t queries, std::uint64_t channels) {
  const float* rows = all.data() + first * channels;
  const std::vector<float> q = test::Data(test::shape(1, 1, 1, static_cast<std::uint32_t>(channels)), queries).keys;
  Buffer memory;
  Buffer prepared;
  void* scratch = memory.ensure<std::byte>(codec.traits().attend_scratch);
  void* own = prepared.ensure<std::byte>(codec.prepared_bytes(queries));
  codec.prepare(0, q.data(), queries, own, scratch);
  const std::uint64_t stride = count + 5;
  std::vector<float> scores(queries * stride, 0.0F);
  std::vector<double> expected(scores.size());
  std::vector<double> sizes(scores.size());
  codec.scores(own, queries, block, first, count, scores.data(), stride, scratch);
  std::vector<float> weights(queries * stride);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>((i * 37) % 101) / 101;
  const std::uint64_t width = codec.width();
  Buffer sums;
  float* accumulator = sums.ensure<float>(queries * width);
  std::fill_n(accumulator, queries * width, 0.0F);
  codec.accumulate(weights.data(), queries, stride, block, first, count, accumulator, scratch);
  std::vector<float> out(queries * channels);
  codec.finish(0, accumulator, queries, out.data(), scratch);
  std::vector<double> wanted(out.size());
  std::vector<double> wanted_sizes(out.size());
  for (std::uint64_t i = 0; i < queries; ++i) {
    for (std::uint64_t t = 0; t < count; ++t) {
      for (std::uint64_t c = 0; c < channels; ++c) {
        const double x = rows[t * channels + c];
        expected[i * stride + t] += static_cast<double>(q[i * channels + c]) * x;
        wanted[i * channels + c] += static_cast<double>(weights[i * stride + t]) * x;
        sizes[i * stride + t] += std::fabs(static_cast<double>(q[i * channels + c]) * x);
        wanted_sizes[i * channels + c] += std::fabs(static_cast<double>(weights[i * stride + t]) * x);
      }
    }
  }
  EXPECT_LT(error_of(scores, expected, sizes), 5e-5);
  EXPECT_LT(error_of(out, wanted, wanted_sizes), 5e-5);
}

void check(const Setting& s, std::uint64_t tokens, Isa isa, const std::vector<float>* rows = nullptr) {
  SCOPED_TRACE(s.text() + ", tokens " + std::to_string(tokens) + ", " + name_of(isa));
  const std::uint64_t channels = s.head_dim;
  const CodecInstance reference = make(s, KVLAB_ROLE_KEYS, Isa::scalar);
  const CodecInstance fast = make(s, KVLAB_ROLE_KEYS, isa);
  tokens = std::min(tokens, reference.traits().block_tokens);
  test::Data data(test::shape(1, 1, 1, s.head_dim, s.dtype), tokens, 0, tokens + channels);
  if (rows != nullptr) {
    std::vector<float> some(rows->begin(), rows->begin() + static_cast<std::ptrdiff_t>(tokens * channels));
    for (auto& x : some) x = s.dtype == Dtype::f16 ? std::clamp(x, -65504.0F, 65504.0F) : x;  // never infinite
    data.set_keys(some);
  }
  const kvlab_view view{data.stored_keys.data(),
                        static_cast<kvlab_dtype>(s.dtype),
                        1,
                        tokens,
                        channels,
                        static_cast<std::int64_t>(tokens * channels),
                        static_cast<std::int64_t>(channels)};
  Bytes64 expected;
  Bytes64 got;
  encode(reference, view, expected);
  encode(fast, view, got);
  ASSERT_EQ(got.size, expected.size);
  const auto* a = expected.memory.ensure<std::uint8_t>(0);
  const auto* b = got.memory.ensure<std::uint8_t>(0);
  for (std::uint64_t i = 0; i < got.size; ++i) ASSERT_EQ(b[i], a[i]) << "byte " << i << " of " << got.size;
  Bytes64 past_caches;
  encode(fast, view, past_caches, KVLAB_PAST_CACHES);
  ASSERT_EQ(std::memcmp(past_caches.memory.ensure<std::uint8_t>(0), b, got.size + KVLAB_READABLE), 0);
  kvlab_block block{};
  block.struct_size = sizeof block;
  block.heads = 1;
  block.bytes = b;
  block.size = got.size;
  block.tokens = tokens;
  const std::vector<float> all = decode(reference, block, 0, tokens, channels);
  ASSERT_EQ(decode(fast, block, 0, tokens, channels), all);
  for (const std::uint64_t queries : {1U, 2U, 4U, 7U}) attends(fast, block, all, 0, tokens, queries, channels);
  attends(fast, block, all, 0, tokens, 17, channels);
  for (const std::uint64_t first : {std::uint64_t{1}, std::uint64_t{8}, tokens / 2}) {
    if (first >= tokens) continue;
    const std::uint64_t count = tokens - first;
    const std::vector<float> part(all.begin() + static_cast<std::ptrdiff_t>(first * channels), all.end());
    ASSERT_EQ(decode(fast, block, first, count, channels), part) << "from token " << first;
    attends(fast, block, all, first, count, 3, channels);
  }
}

// Sanitizers are slow: of the many settings they get a sample.
#if defined(KVLAB_SANITIZED)
constexpr std::size_t every = 5;
#else
constexpr std::size_t every = 1;
#endif

std::vector<Isa> isas() {
  std::vector<Isa> some;
  for (const Isa isa : all_isas) {
    if (has_isa(isa)) some.push_back(isa);
  }
  return some;
}

TEST(QuantizeIsa, EverySettingIsTheReferences) {
  constexpr std::array dtypes{Dtype::bf16, Dtype::f16, Dtype::f32};
  const std::vector<std::string> scale_dtypes{"f16", "bf16", "f32"};
  const std::vector<std::uint64_t> lengths{1, 2, 31, 37, 127, 128, 300};
  std::size_t turn = 0;
  for (const char* bits : {"2", "3", "4", "5", "6", "8"}) {
    for (const char* symmetric : {"true", "false"}) {
      for (const char* scales : {"per_token", "per_channel"}) {
        for (const char* group : {"0", "16", "32", "64", "128", "7", "48", "300"}) {
          for (const std::uint32_t head_dim : {1U, 33U, 64U, 80U, 96U, 128U, 256U, 512U}) {
            ++turn;
            if (turn % every != 0) continue;
            // Element types and lengths take turns, the instruction sets too where there are many.
            const Setting s{bits,    symmetric, scales, group, scale_dtypes[turn % 3], dtypes.at((turn / 3) % 3),
                            head_dim};
            for (const Isa isa : isas())
              check(s, lengths[(turn + static_cast<std::size_t>(isa)) % lengths.size()], isa);
          }
        }
      }
    }
  }
}

TEST(QuantizeIsa, EveryLengthOfTheCommonSettings) {
  for (const char* bits : {"4", "8"}) {
    for (const char* symmetric : {"true", "false"}) {
      for (const char* scales : {"per_token", "per_channel"}) {
        for (const std::uint64_t tokens : {1U, 2U, 3U, 5U, 7U, 15U, 16U, 17U, 33U, 63U, 64U, 65U, 113U, 127U, 128U}) {
          for (const Isa isa : isas()) check({bits, symmetric, scales, "0", "f16", Dtype::bf16, 128}, tokens, isa);
        }
      }
    }
  }
}

void check_awkward(const std::vector<float>& rows, std::uint32_t channels) {
  std::size_t turn = 0;
  for (const char* bits : {"3", "4", "8"}) {
    for (const char* symmetric : {"true", "false"}) {
      for (const char* scales : {"per_token", "per_channel"}) {
        for (const char* group : {"0", "32"}) {
          for (const char* scale_dtype : {"f16", "bf16", "f32"}) {
            for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
              if (++turn % every != 0) continue;
              for (const Isa isa : isas()) {
                check({bits, symmetric, scales, group, scale_dtype, dtype, channels}, rows.size() / channels, isa,
                      &rows);
              }
            }
          }
        }
      }
    }
  }
}

// Zeros, one large value, ties at a half, subnormal numbers, and those whose scale f16 cannot hold.
TEST(QuantizeIsa, AwkwardNumbers) {
  constexpr std::uint64_t tokens = 64;
  constexpr std::uint32_t channels = 128;
  std::vector<float> rows(tokens * channels);
  for (std::uint64_t t = 0; t < tokens; ++t) {
    for (std::uint64_t c = 0; c < channels; ++c) {
      float& x = rows[t * channels + c];
      switch (t % 8) {
        case 0:
          x = 0;
          break;
        case 1:
          x = c == 3 ? 30000.0F : 1e-3F;
          break;
        case 2:
          x = static_cast<float>(c % 255) - 127.0F;
          break;
        case 3:
          x = (static_cast<float>(c) + 0.5F) * 0.125F;
          break;  // quotients at a half
        case 4:
          x = c % 2 == 0 ? 5e-7F : -3e-7F;
          break;
        case 5:  // far from 0, where rounding the zero (in bf16 to 1000 and to 1004) leaves an end outside
          x = t % 16 == 5 ? -0.0F : (t % 32 == 13 ? 1001.3F : 1003.0F) + static_cast<float>(c % 3) / 8;
          break;
        case 6:  // its scale is beyond f16
          x = (c % 2 == 0 ? 3e9F : -1e8F) * static_cast<float>(c);
          break;
        default:
          x = static_cast<float>(c) * 400.0F;
          break;
      }
    }
  }
  check_awkward(rows, channels);
}

// Quotients within a few units in the last place of where their rounding changes, and at distances beyond, up to one in
// 2^10: what a product with the inverse may get wrong. Segments are tokens, or channels.
TEST(QuantizeIsa, QuotientsNearAHalf) {
  constexpr std::uint64_t size = 64;  // tokens and channels
  std::vector<float> tokens(size * size);
  std::vector<float> channels(size * size);
  for (const int codes : {7, 15, 127, 255}) {
    for (std::uint64_t segment = 0; segment < size; ++segment) {
      // f16 and f32 hold it, and the segment's largest makes it the scale.
      const float scale = static_cast<float>(1024 + 16 * segment) / 4096;
      for (std::uint64_t i = 0; i < size; ++i) {
        const auto code = static_cast<float>((segment * 31 + i * 17) % static_cast<std::uint64_t>(codes));
        const auto away = static_cast<std::int32_t>(i % 9) - 4;
        const float off = std::ldexp(static_cast<float>(away), -static_cast<int>(10 + segment % 14));
        float x = (code + 0.5F + off) * scale;
        if (i % 32 == 5) x = static_cast<float>(codes) * scale;
        if (i % 32 == 6) x = 0;
        tokens[segment * size + i] = x;
        channels[i * size + segment] = x;
      }
    }
    check_awkward(tokens, size);
    check_awkward(channels, size);
  }
}

}  // namespace
}  // namespace kvlab
