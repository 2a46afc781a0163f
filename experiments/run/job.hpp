// What the runner hands to a worker: one cell, as JSON on its standard input.
#pragma once

#include <map>
#include <string>

#include "experiments/config/experiment.hpp"
#include "experiments/plan/plan.hpp"

namespace kvlab {

struct Job {
  std::string cell_file;
  Row row;  // what is known of the cell before it runs
  Json parameters;
  Json workload;                     // portable
  std::vector<std::string> plugins;  // libraries of the methods that it uses
  std::int64_t seed = 0;
  Measure measure;
  double peak_read = 0;  // B/s; NaN when not measured
  double peak_copy = 0;
  int timing_fd = -1;       // for TimingTurn
  int calls_fd = -1;        // for CallBoard
  std::int64_t parent = 0;  // the runner's process: a worker does not outlive it
};

std::string to_text(const Job& job);
Job parse_job(const std::string& text);

// The worker's side: runs the job on stdin and writes its cell file, whatever the status. Returns the exit code.
int run_worker();

}  // namespace kvlab
