// A codec whose rows are read four at a time: they are turned by a Hadamard matrix with random signs (QuaRot, arXiv
// 2404.00456), rounded to 8 bits and interleaved. All instances share one state, the signs.
//
//   a block    quad | quad | ... | the last one, of 1 to 4 tokens
//   a quad     scales f32 [token] | codes int8 [channel][token]
#include <kvlab/plugin.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

constexpr std::uint64_t quad = 4;
constexpr std::uint64_t most_channels = 512;

// [channel], 1 or -1.
const std::array<std::int8_t, most_channels>& signs() {
  static const std::array<std::int8_t, most_channels> all = [] {
    std::array<std::int8_t, most_channels> drawn{};
    std::uint32_t bits = 2463534242;  // xorshift32 (Marsaglia 2003)
    for (auto& sign : drawn) {
      bits ^= bits << 13U;
      bits ^= bits >> 17U;
      bits ^= bits << 5U;
      sign = (bits & 1U) != 0 ? 1 : -1;
    }
    return drawn;
  }();
  return all;
}

// The Hadamard matrix of the largest power of two among the channels, its own inverse; the rest stays as it is.
void turn(std::span<float> row) {
  const std::size_t size = std::bit_floor(row.size());
  for (std::size_t half = 1; half < size; half *= 2) {
    for (std::size_t i = 0; i < size; ++i) {
      if ((i & half) != 0) continue;
      const float a = row[i];
      const float b = row[i + half];
      row[i] = a + b;
      row[i + half] = a - b;
    }
  }
  const float norm = 1 / std::sqrt(static_cast<float>(size));
  for (std::size_t i = 0; i < size; ++i) row[i] *= norm;
}

void sign(std::span<float> row) {
  for (std::size_t c = 0; c < row.size(); ++c) row[c] *= static_cast<float>(signs()[c]);
}

float largest(std::span<const float> row) {
  float most = 0;
  for (const float x : row) most = std::max(most, std::fabs(x));
  return most;
}

struct Rotated : kvlab::Codec {
  static constexpr kvlab::Info info{.id = "rotated", .version = "1", .summary = "a codec for tests"};

  [[nodiscard]] static std::uint64_t decode_granule() { return quad; }
  [[nodiscard]] static std::uint64_t state_bytes() { return sizeof(signs()); }
  [[nodiscard]] static std::uint64_t state_key() { return 1; }
  [[nodiscard]] static std::uint64_t block_tokens() { return 64; }
  [[nodiscard]] std::uint64_t bound(std::uint64_t tokens) const { return tokens * (sizeof(float) + head_dim()); }

  kvlab_parts encode(const kvlab::EncodeIn& in, std::span<std::uint8_t> out) const {
    const std::uint64_t tokens = in.tokens.tokens;
    std::vector<float> rows(tokens * head_dim());
    in.tokens.read_all(rows);
    for (std::uint64_t first = 0; first < tokens; first += quad) {
      const std::uint64_t count = std::min(quad, tokens - first);
      std::uint8_t* at = out.data() + bound(first);
      for (std::uint64_t t = 0; t < count; ++t) {
        const std::span<float> row = std::span(rows).subspan((first + t) * head_dim(), head_dim());
        if (largest(row) > 1e35F)
          throw kvlab::Unsupported("numbers near the largest of f32: turned they are beyond it");
        sign(row);
        turn(row);
        const float scale = largest(row) / 127;
        std::memcpy(at + t * sizeof scale, &scale, sizeof scale);
        for (std::uint64_t c = 0; c < row.size(); ++c) {
          const float code = scale > 0 ? std::nearbyint(row[c] / scale) : 0;
          at[count * sizeof scale + c * count + t] = static_cast<std::uint8_t>(static_cast<std::int8_t>(code));
        }
      }
    }
    return {tokens * head_dim(), tokens * sizeof(float), 0, 0};
  }

  void decode(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
              kvlab::Scratch /*scratch*/) const {
    for (std::uint64_t token = first; token < first + count; ++token) {
      const std::uint64_t of = token / quad * quad;
      const std::uint64_t size = std::min(quad, block.tokens - of);
      const std::uint8_t* at = block.bytes + bound(of);
      float scale = 0;
      std::memcpy(&scale, at + (token - of) * sizeof scale, sizeof scale);
      const std::span<float> row(rows[token - first], head_dim());
      for (std::uint64_t c = 0; c < row.size(); ++c) {
        row[c] = scale * static_cast<float>(static_cast<std::int8_t>(at[size * sizeof scale + c * size + token - of]));
      }
      turn(row);
      sign(row);
    }
  }
};

}  // namespace

KVLAB_PLUGIN(Rotated)
