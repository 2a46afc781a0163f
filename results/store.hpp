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

// The table `cells` of a run file, a stranger's perhaps: read in a child (structure.hpp).
Table read_run(const std::filesystem::path& path);

}  // namespace kvlab
