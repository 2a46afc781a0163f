// Tokens drawn at random, seeded: the baseline that a selector has to beat.
#include <kvlab/plugin.hpp>

namespace {

// SplitMix64 (Steele, Lea, Flood 2014): a well mixed 64-bit value of its input.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

struct Random : kvlab::Selector {
  static constexpr kvlab::Info info{
      .id = "random",
      .version = "1.0.0",
      .summary = "keeps tokens drawn uniformly: the baseline that exposes the others",
  };

  [[nodiscard]] static unsigned scope() { return KVLAB_SCOPE_TOKEN; }

  // A score is a function of seed, layer, sequence, head and position alone, so it does not depend on threads.
  void scores(const kvlab::HeadView& head, std::span<float> out) const {
    std::uint64_t key = mix(layer.seed);
    for (const std::uint32_t part : {layer.layer, head.sequence, head.kv_head}) key = mix(key ^ part);
    for (std::uint64_t t = 0; t < head.tokens(); ++t) {
      out[t] = static_cast<float>(mix(key ^ head.positions[t]) >> 40) * 0x1p-24F;  // [0, 1), 24 bits
    }
  }
};

}  // namespace

KVLAB_PLUGIN(Random)
