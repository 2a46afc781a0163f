// What the runner hands to a worker: one cell, as JSON on its standard input.
#pragma once

#include <map>
#include <string>

#include "experiments/config/experiment.hpp"
#include "experiments/plan/plan.hpp"

namespace kvlab {

struct Job {
  Row row;  // what is known of the cell before it runs
  Json parameters;
  Json workload;                           // portable
  std::vector<Registry::Library> plugins;  // of the methods that it uses
  std::int64_t seed = 0;
  Measure measure;
  double peak_read = 0;  // B/s; NaN when not measured
  double peak_copy = 0;
  int timing_fd = -1;       // for TimingTurn: worker_turn_fd, or -1 where it runs alone
  std::int64_t parent = 0;  // the runner's process: a worker does not outlive it
};

// The job is a worker's standard input; what it prints goes to the runner. Further descriptors:
constexpr int worker_turn_fd = 3;    // TurnLine's
constexpr int worker_calls_fd = 4;   // CallBoard's
constexpr int worker_result_fd = 5;  // a file of memory, empty: for the bytes of its cell

std::string to_text(const Job& job);
Job parse_job(const std::string& text);

// The worker's side: runs the job and hands over its cell, whatever the status. It knows no place on the disk to harm.
// Returns the exit code.
int run_worker();

}  // namespace kvlab
