// Runs what is not yet done of a plan, one worker process per cell, and makes the run file.
#pragma once

#include <filesystem>
#include <string>

#include "experiments/config/experiment.hpp"
#include "experiments/plan/plan.hpp"

namespace kvlab {

struct RunOptions {
  std::filesystem::path output;  // the run file; cell files lie in a folder beside it
  std::size_t jobs = 1;
  bool fresh = false;    // run those too that are finished
  bool retry = false;    // run those again that failed
  bool replace = false;  // another experiment's result
  std::string command;   // as it was typed, for the file
  std::string commit;
};

// 0: all well; 1: some cells failed, timed out, ran out of memory or crashed; 130: interrupted. What is finished stays.
// Throws InputError, and nothing was written, where another run writes to the same output, or it is
// another experiment's result.
int run_plan(const Experiment& experiment, const Plan& plan, const RunOptions& options);

}  // namespace kvlab
