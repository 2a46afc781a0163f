// The run file: the table of a run, made from its cell files, and can be made again.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "results/cell.hpp"

namespace kvlab {

// What a run file says of itself.
struct RunInfo {
  std::vector<std::pair<std::string, Value>> attributes;  // of the root
  std::string source;                                     // the experiment file
  std::string expanded;                                   // and its expansion
  std::vector<ColumnSpec> swept;                          // a column for each swept parameter
};

void write_run(const std::filesystem::path& path, const RunInfo& info, const std::vector<CellRecord>& cells);

// What a run file says of where it comes from.
struct RunOrigin {
  std::string run;     // of the start that wrote it (PlanRecord::run); "" in files that do not say it
  std::string source;  // the experiment's text
};

// The columns of `cells`, those of swept parameters among them.
std::vector<ColumnSpec> result_columns(const std::vector<ColumnSpec>& swept);

// A stranger's file perhaps, as below. Throws InputError.
RunOrigin read_origin(const std::filesystem::path& path);

// The table `cells` of a run file, a stranger's perhaps: read in a child (structure.hpp).
Table read_run(const std::filesystem::path& path);

}  // namespace kvlab
