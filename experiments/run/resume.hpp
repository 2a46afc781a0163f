// What is done already of a plan, and what is to run.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "experiments/plan/plan.hpp"
#include "experiments/run/process.hpp"
#include "results/cell.hpp"

namespace kvlab {

struct Resume {
  std::map<std::string, CellRecord> known;  // by id: rows that are there without running anything
  std::vector<const Cell*> pending;         // in the plan's order, each id once
};

struct ResumeOptions {
  bool fresh;  // run all that are chosen
  bool retry;  // and those that failed
  WorkerLimits limits;
};

// Reads each cell's file once. Damaged files are set aside and measured again. One that cannot be read for another
// reason is left and its row is `failed`, but for `fresh` and `retry`, which set it aside too. A cell that a limit
// ended runs again under one that is a tenth larger. Says on stderr what became of files, and how many cells are done.
Resume resume(const Plan& plan, const std::filesystem::path& folder, const ResumeOptions& options);

// A cell whose K, V and queries alone exceed the limit, or the bytes that are free, does not run: it is known to be
// `out_of_memory`, whether it was to run or not.
void set_too_large_apart(const Plan& plan, Resume& resume, const WorkerLimits& limits, std::uint64_t free_memory);

}  // namespace kvlab
