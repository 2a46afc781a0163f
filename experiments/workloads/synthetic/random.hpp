// Seeded random numbers for generators: xoshiro256++ (Blackman and Vigna 2018), one stream for each thing drawn, so
// that what is drawn does not depend on threads or order.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <numbers>
#include <span>

namespace kvlab {

class Random {
 public:
  // The stream of this seed and these numbers (layer, sequence, head, ...).
  Random(std::uint64_t seed, std::initializer_list<std::uint64_t> stream) {
    std::uint64_t key = mix(seed);
    for (const std::uint64_t part : stream) key = mix(key ^ part);
    for (auto& word : state_) word = mix(key++);
  }

  std::uint64_t next() {
    const std::uint64_t result = rotate(state_[0] + state_[3], 23) + state_[0];
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = rotate(state_[3], 45);
    return result;
  }

  // (0, 1), 24 bits
  float uniform() { return (static_cast<float>(next() >> 40) + 0.5F) * 0x1p-24F; }
  // 0 .. bound - 1 (bound > 0); the bias is below bound / 2^64
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }

  // Independent N(0,1), by Box and Muller.
  void normal(std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); i += 2) {
      const float radius = std::sqrt(-2.0F * std::log(uniform()));
      const float angle = 2.0F * std::numbers::pi_v<float> * uniform();
      out[i] = radius * std::cos(angle);
      if (i + 1 < out.size()) out[i + 1] = radius * std::sin(angle);
    }
  }

 private:
  static std::uint64_t rotate(std::uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
  static std::uint64_t mix(std::uint64_t x) {  // SplitMix64
    x += 0x9E3779B97F4A7C15U;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
  }

  std::array<std::uint64_t, 4> state_{};
};

}  // namespace kvlab
