// Timing by a backend's clock: one warm-up, then samples until they are enough.
#pragma once

#include <functional>
#include <vector>

#include "core/backend/backend.hpp"
#include "experiments/config/experiment.hpp"

namespace kvlab {

// Seconds of each call, in order. Stops at >= min_samples with a standard error of the mean <= 2 % of it, or at
// max_seconds after at least 3 samples.
std::vector<double> sample(const Measure& measure, Backend& backend, const std::function<void()>& call);

// Of what is slow and of little interest in its spread: no warm-up, up to 3 samples, none begun after max_seconds.
std::vector<double> sample_briefly(const Measure& measure, Backend& backend, const std::function<void()>& call);

}  // namespace kvlab
