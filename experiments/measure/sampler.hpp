// Timing: one warm-up, then samples until they are enough.
#pragma once

#include <functional>
#include <vector>

#include "experiments/config/experiment.hpp"

namespace kvlab {

// Seconds of each call, in order. Stops at >= min_samples with a standard error of the mean <= 2 % of it, or at
// max_seconds after at least 3 samples.
std::vector<double> sample(const Measure& measure, const std::function<void()>& call);

// Of what is slow and of little interest in its spread: no warm-up, up to 3 samples, none begun after max_seconds.
std::vector<double> sample_briefly(const Measure& measure, const std::function<void()>& call);

// Timed sections of workers that run side by side take turns: an exclusive lock on a file that they share, released
// with this, or with the process. fd < 0: nobody else is running.
class TimingTurn {
 public:
  explicit TimingTurn(int fd);
  ~TimingTurn();
  TimingTurn(const TimingTurn&) = delete;
  TimingTurn& operator=(const TimingTurn&) = delete;

 private:
  int fd_;
};

}  // namespace kvlab
