// The finished cells of a plan: what their files hold, and the rows that come of it.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "results/cell.hpp"
#include "results/plan_record.hpp"

namespace kvlab {

// By id; each of the ids that has a file is in one of the three.
struct Finished {
  std::map<std::string, CellRecord> cells;
  std::map<std::string, std::string> damaged;     // and what is wrong
  std::map<std::string, std::string> unreadable;  // whole, perhaps: of another version, or it cannot be opened
};

Finished read_cells(const std::filesystem::path& folder, const std::set<std::string>& ids);

// The rows of a result, in the plan's order and with its labels; a cell that is not in `cells` has none, unless the
// plan knows its status. Of cells with equal ids the first alone has layers, samples and rungs.
std::vector<CellRecord> merge(const PlanRecord& plan, const std::map<std::string, CellRecord>& cells);

// A cell without a measurement: its planned row, and what became of it.
CellRecord unmeasured(Row row, Status status, const std::string& reason);

// The table of a result, whether its run has ended or not: the run file, or where that is not there or an earlier
// start's, what its plan and cells say so far. `note` is then a sentence that says how far it is, else "".
Table read_result(const std::filesystem::path& output, std::string& note);

}  // namespace kvlab
