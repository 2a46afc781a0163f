// What a run set out to do: written as OUT.cells/plan when it starts. With the cell files beside it, it says how far a
// run is, and from both its result can be made again without the experiment, its traces or its methods.
//
// The file is sealed (envelope.hpp, "kvplan") over a map of CBOR with the members below; `rows` is a map from column to
// the list of its values.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "results/schema.hpp"

namespace kvlab {

struct PlanRecord {
  std::string run;                       // of this start alone: the run file that it writes bears it too
  std::string file;                      // the experiment's own path, absolute; "" for a pipe
  std::string source;                    // its text
  std::vector<std::string> assignments;  // each --set
  std::string command;
  std::string started;
  std::vector<ColumnSpec> swept;  // a column for each swept path
  // One per cell of the whole grid, in its order: id, labels, parameters, sizes and swept values; a cell that cannot
  // run here has a status and a reason too.
  std::vector<Row> rows;
};

// Of one experiment: the same path, whatever its text and --set, or the same text.
bool same_experiment(const PlanRecord& a, const PlanRecord& b);

std::string plan_to_bytes(const PlanRecord& plan);
// Throws DamagedError; InputError for a version that is not known. The sentence names no file.
PlanRecord plan_from_bytes(std::string_view bytes);

// Atomically, in a folder of cells.
void write_plan(const std::filesystem::path& folder, const PlanRecord& plan);
// Throws as plan_from_bytes does, or InputError when the file cannot be read; the sentence begins with its path.
PlanRecord read_plan(const std::filesystem::path& folder);

}  // namespace kvlab
