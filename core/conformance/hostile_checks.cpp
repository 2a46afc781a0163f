// What a codec owes where something else went wrong: bytes that are not what it wrote, positions in no order.
#include <algorithm>
#include <random>

#include "core/conformance/checks.hpp"

namespace kvlab::conformance {
namespace {

// Any status will do, as will any numbers: it returns, and touches nothing else.
void expect_return(const std::function<void()>& call) {
  try {
    call();
  } catch (const MethodError&) {  // NOLINT(bugprone-empty-catch)
  }
}

void use(const CodecSubject& subject, const EncodedBlock& damaged) {
  const std::uint64_t tokens = damaged.block.tokens;
  const std::uint64_t granule = subject.codec().traits().decode_granule;
  const std::uint64_t last = (tokens - 1) / granule * granule;
  expect_return([&] { static_cast<void>(subject.decode(damaged.block, 0, tokens)); });
  expect_return([&] { static_cast<void>(subject.decode(damaged.block, last, tokens - last)); });
  if (subject.attends_keys()) {
    const std::vector<float> queries(3 * subject.channels(), 0.5F);
    expect_return([&] { static_cast<void>(subject.scores(queries, damaged.block, 0, tokens)); });
  }
  if (subject.attends_values()) {
    const std::vector<float> weights(3 * tokens, 0.5F);
    expect_return([&] { static_cast<void>(subject.weighted(weights, damaged.block, 0, tokens)); });
  }
  if (!subject.codec().gathers()) return;
  const std::vector<std::uint32_t> keep{static_cast<std::uint32_t>(tokens - 1)};
  expect_return([&] { static_cast<void>(subject.gather(damaged.block, keep)); });
}

}  // namespace

// Each bit of the first bytes and of the last ones, bits here and there, and bytes of any kind.
void survives_damage(const Method& method, const Place& place) {
  for_codec_cases(method, place, [](const CodecSubject& subject, std::uint64_t tokens) {
    const std::vector<std::uint8_t> bytes = subject.encode(draw(subject.dtype(), tokens, subject.channels())).bytes();
    std::mt19937_64 engine(tokens);
    const std::size_t bits = bytes.size() * 8;
    if (bits == 0) return;
    const auto flipped = [&](std::size_t bit) {
      std::vector<std::uint8_t> damaged = bytes;
      damaged[bit / 8] = static_cast<std::uint8_t>(damaged[bit / 8] ^ (1U << bit % 8));
      use(subject, make_block(damaged, tokens));
    };
    constexpr std::size_t edge = 64;
    for (std::size_t bit = 0; bit < std::min(edge, bits); ++bit) {
      flipped(bit);
      flipped(bits - 1 - bit);
    }
    for (int i = 0; i < 32; ++i) flipped(engine() % bits);
    const auto head = std::min<std::ptrdiff_t>(32, std::ssize(bytes));
    for (int i = 0; i < 9; ++i) {  // of all bytes, of the first few, of all but those
      std::vector<std::uint8_t> damaged(bytes.size());
      std::generate(damaged.begin(), damaged.end(), [&] { return static_cast<std::uint8_t>(engine()); });
      if (i % 3 == 1) std::copy(bytes.begin() + head, bytes.end(), damaged.begin() + head);
      if (i % 3 == 2) std::copy_n(bytes.begin(), head, damaged.begin());
      use(subject, make_block(damaged, tokens));
    }
    for (const unsigned byte : {0x00U, 0x7FU, 0x80U, 0xFFU}) {
      use(subject, make_block(std::vector<std::uint8_t>(bytes.size(), static_cast<std::uint8_t>(byte)), tokens));
    }
  });
}

// A block's tokens may be of any positions, and those of evicted ones are 2^31 and more.
void takes_any_positions(const Method& method, const Place& place) {
  for_codec_cases(method, place, [](const CodecSubject& subject, std::uint64_t tokens) {
    EncodedBlock block = subject.encode(draw(subject.dtype(), tokens, subject.channels()));
    std::vector<std::uint32_t> positions(tokens);
    for (std::uint32_t t = 0; t < tokens; ++t) positions[t] = t % 3 == 0 ? (1U << 31) + t : 5 * (300 - t);
    block.block.positions = positions.data();
    use(subject, block);
    block.block.positions = nullptr;
    block.block.first_position = (1U << 31) - static_cast<std::uint32_t>(tokens);
    use(subject, block);
  });
}

}  // namespace kvlab::conformance
