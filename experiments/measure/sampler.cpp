#include "experiments/measure/sampler.hpp"

#include <cmath>

namespace kvlab {
namespace {

bool steady(const std::vector<double>& samples) {
  const auto count = static_cast<double>(samples.size());
  double mean = 0;
  for (const double s : samples) mean += s / count;
  double variance = 0;
  for (const double s : samples) variance += (s - mean) * (s - mean) / (count - 1);
  return std::sqrt(variance / count) <= 0.02 * mean;
}

}  // namespace

std::vector<double> sample(const Measure& measure, Backend& backend, const std::function<void()>& call) {
  constexpr std::size_t least = 3;
  call();
  std::vector<double> samples;
  const double begin = backend.now();
  while (true) {
    const double start = backend.now();
    call();
    const double end = backend.now();
    samples.push_back(end - start);
    const bool enough = samples.size() >= static_cast<std::size_t>(measure.min_samples);
    if (samples.size() >= least && ((enough && steady(samples)) || end - begin >= measure.max_seconds)) return samples;
  }
}

std::vector<double> sample_briefly(const Measure& measure, Backend& backend, const std::function<void()>& call) {
  std::vector<double> samples;
  const double begin = backend.now();
  while (samples.empty() || (samples.size() < 3 && backend.now() - begin < measure.max_seconds)) {
    const double start = backend.now();
    call();
    samples.push_back(backend.now() - start);
  }
  return samples;
}

}  // namespace kvlab
