// What every codec must do with blocks of its own.
#include <cmath>
#include <thread>

#include "core/conformance/checks.hpp"

namespace kvlab::conformance {
namespace {

void expect_equal(const std::vector<float>& got, std::span<const float> expected, const std::string& sentence) {
  if (!std::equal(got.begin(), got.end(), expected.begin(), expected.end())) throw Failure(sentence);
}

}  // namespace

void accepts_something(const Method& method, const Place& place) {
  const MethodSpec defaults = settings(method).front();
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
    for (const std::uint32_t head_dim : {64U, 128U, 96U, 80U, 256U}) {
      for (const std::uint32_t role : {KVLAB_ROLE_KEYS, KVLAB_ROLE_VALUES}) {
        place.set(std::string(name_of(dtype)) + ", head_dim " + std::to_string(head_dim));
        const bool accepted = unless_refused([&] {
          const CodecSubject subject(defaults, layer_shape(dtype, head_dim), role);
          const EncodedBlock block =
              subject.encode(draw(dtype, subject.codec().traits().block_tokens > 63 ? 64 : 1, head_dim));
          static_cast<void>(subject.decode(block.block, 0, block.block.tokens));
        });
        if (accepted) return;
      }
    }
  }
  place.set("");
  throw Failure("with its default parameters it refuses every dtype, head_dim and role");
}

void decodes_finite(const Method& method, const Place& place) {
  for_codec_cases(method, place, [&](const CodecSubject& subject, std::uint64_t tokens) {
    const std::string here = place.text();
    for (const Content content : all_contents) {
      place.set(here + ", " + name_of(content));
      unless_refused([&] {
        const EncodedBlock block = subject.encode(draw(subject.dtype(), tokens, subject.channels(), content));
        for (const float x : subject.decode(block.block, 0, tokens)) {
          if (!std::isfinite(x)) throw Failure("a decoded value is not finite");
        }
      });
    }
  });
}

void decodes_in_parts(const Method& method, const Place& place) {
  for_codec_cases(method, place, [](const CodecSubject& subject, std::uint64_t tokens) {
    const EncodedBlock block = subject.encode(draw(subject.dtype(), tokens, subject.channels()));
    const std::vector<float> rows = subject.decode(block.block, 0, tokens);
    const std::uint64_t granule = subject.codec().traits().decode_granule;
    for (std::uint64_t first = 0; first < tokens; first += granule * std::max<std::uint64_t>(1, tokens / granule / 5)) {
      for (const std::uint64_t wanted : {granule, 3 * granule, tokens}) {
        const std::uint64_t count = std::min(wanted, tokens - first);
        expect_equal(subject.decode(block.block, first, count),
                     std::span(rows).subspan(first * subject.channels(), count * subject.channels()),
                     "decode of tokens " + std::to_string(first) + " .. " + std::to_string(first + count - 1) +
                         " gives other rows than decode of all");
      }
    }
  });
}

// Also from several threads at once on one instance.
void repeats_itself(const Method& method, const Place& place) {
  for_codec_cases(method, place, [](const CodecSubject& subject, std::uint64_t tokens) {
    const Tokens given = draw(subject.dtype(), tokens, subject.channels());
    const std::vector<std::uint8_t> bytes = subject.encode(given).bytes();
    const std::vector<float> rows = subject.decode(make_block(bytes, tokens).block, 0, tokens);
    std::vector<std::string> wrong(4);
    {
      std::vector<std::jthread> threads;
      for (auto& sentence : wrong) {
        threads.emplace_back([&] {
          try {
            const EncodedBlock again = subject.encode(given);
            if (again.bytes() != bytes)
              throw Failure("encode gives other bytes for the same tokens, or from another thread");
            expect_equal(subject.decode(again.block, 0, tokens), rows,
                         "decode gives other rows for the same bytes, or from another thread");
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

// Rows that lie apart, and bytes that are written past the caches, are the same block.
void ignores_layout(const Method& method, const Place& place) {
  for_codec_cases(method, place, [](const CodecSubject& subject, std::uint64_t tokens) {
    const Tokens given = draw(subject.dtype(), tokens, subject.channels());
    const std::vector<std::uint8_t> bytes = subject.encode(given).bytes();
    if (subject.encode(given, subject.channels() + 5).bytes() != bytes) {
      throw Failure("encode gives other bytes where the rows lie further apart");
    }
    if (subject.encode(given, subject.channels(), KVLAB_PAST_CACHES).bytes() != bytes) {
      throw Failure("encode gives other bytes with KVLAB_PAST_CACHES");
    }
  });
}

void gathers_losslessly(const Method& method, const Place& place) {
  if (method.gather == nullptr) return;
  for_codec_cases(method, place, [](const CodecSubject& subject, std::uint64_t tokens) {
    const EncodedBlock block = subject.encode(draw(subject.dtype(), tokens, subject.channels()));
    const std::vector<float> rows = subject.decode(block.block, 0, tokens);
    for (const std::uint32_t step : {1U, 2U, 5U}) {
      std::vector<std::uint32_t> keep;
      std::vector<float> expected;
      for (auto t = step - 1; t < tokens; t += step) {
        keep.push_back(t);
        const auto row = std::span(rows).subspan(t * subject.channels(), subject.channels());
        expected.insert(expected.end(), row.begin(), row.end());
      }
      if (keep.empty()) continue;
      const auto left = subject.gather(block.block, keep);
      if (!left) continue;
      expect_equal(subject.decode(left->block, 0, keep.size()), expected,
                   "what gather leaves decodes to other rows than the block did");
    }
  });
}

}  // namespace kvlab::conformance
