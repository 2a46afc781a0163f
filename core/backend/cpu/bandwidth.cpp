#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/backend/cpu/cpu_backend.hpp"
#include "core/base/memory.hpp"
#include "core/base/vector.hpp"

namespace kvlab {
namespace {

constexpr std::size_t words_a_line = 8;

// The sum of all words: the compiler may not leave a read out.
KVLAB_MULTIVERSION std::uint64_t read_words(const std::uint64_t* words, std::size_t count) {
  std::uint64_t sums[4 * words_a_line] = {};
  for (std::size_t i = 0; i < count; i += 4 * words_a_line) {
    for (std::size_t j = 0; j < 4 * words_a_line; ++j) sums[j] += words[i + j];
  }
  std::uint64_t total = 0;
  for (const auto sum : sums) total += sum;
  return total;
}

template <class Pass>
double fastest(Pass&& pass) {
  double best = 1e9;
  for (int repeat = 0; repeat < 7; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    pass();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

PeakBandwidth CpuBackend::measure_peak_bandwidth(std::size_t most) {
  constexpr std::size_t wanted = std::size_t{512} << 20;
  constexpr std::size_t piece = std::size_t{4} << 20;
  const std::size_t bytes = std::max(2 * piece, std::min<std::size_t>(wanted, most) / (2 * piece) * (2 * piece));
  const Mapping memory(bytes);
  const std::size_t pieces = bytes / piece;  // an even number
  pool_.parallel_for(pieces, [&](std::size_t i, std::size_t) { std::memset(memory.data() + i * piece, 1, piece); });

  std::vector<std::uint64_t> sums(threads());
  const double read = fastest([&] {
    pool_.parallel_for(pieces, [&](std::size_t i, std::size_t thread) {
      sums[thread] += read_words(memory.as<std::uint64_t>().data() + i * piece / 8, piece / 8);
    });
  });
  const volatile std::uint64_t used = sums.front();
  static_cast<void>(used);
  const double copy = fastest([&] {
    pool_.parallel_for(pieces / 2, [&](std::size_t i, std::size_t) {
      std::memcpy(memory.data() + (pieces / 2 + i) * piece, memory.data() + i * piece, piece);
    });
  });
  return {static_cast<double>(bytes) / read, static_cast<double>(bytes) / copy};
}

}  // namespace kvlab
