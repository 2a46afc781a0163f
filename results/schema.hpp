// The columns of a result, in their order: names, types, units, meanings. Users meet these; a name never changes.
#pragma once

#include <string>
#include <vector>

#include "results/table.hpp"

namespace kvlab {

const std::vector<ColumnSpec>& cell_columns();    // `cells`: one row per cell
const std::vector<ColumnSpec>& layer_columns();   // `layers`: one row per cell and layer
const std::vector<ColumnSpec>& sample_columns();  // `samples`: each raw timing
const std::vector<ColumnSpec>& rung_columns();    // `rungs`: one row per codec of an adaptive cell, and role

// What became of a cell.
enum class Status { ok, skipped, unsupported, failed, timeout, out_of_memory, crashed };
const char* name_of(Status status);
// True for failed, timeout, out_of_memory and crashed: such a run exits with 1.
bool is_failure(const std::string& status);

}  // namespace kvlab
