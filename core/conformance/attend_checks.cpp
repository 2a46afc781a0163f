// Attention on the bytes is attention over the decoded rows.
#include <algorithm>
#include <cmath>

#include "core/conformance/checks.hpp"

namespace kvlab::conformance {
namespace {

// What attention on the bytes may differ by: codecs may round queries and weights to 16 bits. A tenth of the 2e-3 that
// the project promises.
constexpr double tolerance = 2e-4;

constexpr std::uint64_t queries = 3;

double relative(const std::vector<float>& got, const std::vector<double>& expected) {
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  if (error == 0) return 0;
  return norm > 0 ? std::sqrt(error / norm) : 1;
}

void expect_near(const std::vector<float>& got, const std::vector<double>& expected, const std::string& what) {
  const double error = relative(got, expected);
  if (error < tolerance) return;
  throw Failure(what + " differ from those of the decoded rows by " + std::to_string(error) +
                " of their norm; at most " + std::to_string(tolerance));
}

void check_scores(const CodecSubject& subject, const EncodedBlock& block, const std::vector<float>& rows,
                  std::uint64_t first, std::uint64_t count) {
  const std::uint64_t channels = subject.channels();
  const std::vector<float> given = draw(Dtype::f32, queries, channels, Content::normal, 5).rows;
  std::vector<double> expected;
  for (std::uint64_t i = 0; i < queries; ++i) {
    for (std::uint64_t t = first; t < first + count; ++t) {
      double sum = 0;
      for (std::uint64_t c = 0; c < channels; ++c) {
        sum += static_cast<double>(given[i * channels + c]) * rows[t * channels + c];
      }
      expected.push_back(sum);
    }
  }
  expect_near(subject.scores(given, block.block, first, count), expected, "scores");
}

void check_values(const CodecSubject& subject, const EncodedBlock& block, const std::vector<float>& rows,
                  std::uint64_t first, std::uint64_t count) {
  const std::uint64_t channels = subject.channels();
  std::vector<float> weights(queries * count);
  for (std::uint64_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i % 7) / 7 + 0.01F;
  std::vector<double> expected(queries * channels);
  for (std::uint64_t i = 0; i < queries; ++i) {
    for (std::uint64_t t = 0; t < count; ++t) {
      for (std::uint64_t c = 0; c < channels; ++c) {
        expected[i * channels + c] += static_cast<double>(weights[i * count + t]) * rows[(first + t) * channels + c];
      }
    }
  }
  expect_near(subject.weighted(weights, block.block, first, count), expected, "accumulated values");
}

}  // namespace

void attends_as_it_decodes(const Method& method, const Place& place) {
  if (method.attend_keys == nullptr && method.attend_values == nullptr) return;
  for_codec_cases(method, place, [](const CodecSubject& subject, std::uint64_t tokens) {
    const EncodedBlock block = subject.encode(draw(subject.dtype(), tokens, subject.channels()));
    const std::vector<float> rows = subject.decode(block.block, 0, tokens);
    const std::uint64_t granule = subject.codec().traits().decode_granule;
    const std::uint64_t middle = tokens / 2 / granule * granule;
    for (const auto& [first, count] : {std::pair{std::uint64_t{0}, tokens}, std::pair{middle, tokens - middle},
                                       std::pair{middle, std::min(granule, tokens - middle)}}) {
      if (subject.attends_keys()) check_scores(subject, block, rows, first, count);
      if (subject.attends_values()) check_values(subject, block, rows, first, count);
    }
  });
}

}  // namespace kvlab::conformance
