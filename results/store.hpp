// The two files of the store. A cell file is one measured cell, written aside, fsynced and renamed: it is there whole
// or not at all. A run file is made from cell files and can be made again.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "results/schema.hpp"

namespace kvlab {

// All that was measured of one cell. Labels (pipeline, workload) are those of the experiment that ran it.
struct CellRecord {
  Row cell;
  std::vector<Row> layers;
  std::vector<Row> samples;
  std::vector<Row> rungs;
};

void write_cell(const std::filesystem::path& path, const CellRecord& record);
CellRecord read_cell(const std::filesystem::path& path);  // InputError names the file

// What a run file says of itself.
struct RunInfo {
  std::vector<std::pair<std::string, Value>> attributes;  // of the root
  std::string source;                                     // the experiment file
  std::string expanded;                                   // and its expansion
  std::vector<ColumnSpec> swept;                          // a column for each swept parameter
};

void write_run(const std::filesystem::path& path, const RunInfo& info, const std::vector<CellRecord>& cells);

// The table `cells` of a run file, a stranger's perhaps: opened in a child first.
Table read_run(const std::filesystem::path& path);

// Writes with `write` to a name beside `path`, fsyncs, renames.
void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path&)>& write);

}  // namespace kvlab
