#include "results/finished.hpp"

#include "results/lock.hpp"
#include "results/places.hpp"
#include "results/store.hpp"

namespace kvlab {
namespace {

std::set<std::string> ids_of(const PlanRecord& plan) {
  std::set<std::string> ids;
  for (const Row& row : plan.rows) ids.insert(std::get<std::string>(row.at("id")));
  return ids;
}

std::string text_in(const Row& row, const char* name) {
  const auto found = row.find(name);
  return found == row.end() ? "" : std::get<std::string>(found->second);
}

// Whether the run file is what the plan's own start wrote.
bool is_written(const std::filesystem::path& file, const PlanRecord& plan) {
  return std::filesystem::exists(file) && read_origin(file).run == plan.run;
}

// The command that goes on: with --fresh it would begin again.
std::string without_fresh(std::string command) {
  const std::string flag = " --fresh";
  if (const auto at = command.find(flag); at != std::string::npos) command.erase(at, flag.size());
  return command;
}

Table so_far(const std::filesystem::path& file, const PlanRecord& plan, std::string& note) {
  const std::filesystem::path folder = cells_folder(file);
  Finished finished = read_cells(folder, ids_of(plan));
  for (const Row& row : plan.rows) {
    const auto found = finished.unreadable.find(text_in(row, "id"));
    if (found != finished.unreadable.end()) {
      finished.cells[found->first] = unmeasured(row, Status::failed, found->second);
    }
  }
  std::vector<Row> rows;
  for (CellRecord& record : merge(plan, finished.cells)) rows.push_back(std::move(record.cell));
  note = file.string() + (std::filesystem::exists(file) ? " is of an earlier start" : " is not written yet") + ": " +
         std::to_string(rows.size()) + " of " + std::to_string(plan.rows.size()) + " cells are done";
  const auto writer = writer_of(folder);
  note +=
      writer ? ", and a run goes on (" + *writer + ")" : "; '" + without_fresh(plan.command) + "' goes on from there";
  return make_table(result_columns(plan.swept), rows);
}

}  // namespace

Finished read_cells(const std::filesystem::path& folder, const std::set<std::string>& ids) {
  Finished finished;
  for (const std::string& id : ids) {
    const std::filesystem::path file = cell_file(folder, id);
    std::error_code failure;
    if (std::filesystem::symlink_status(file, failure).type() == std::filesystem::file_type::not_found) continue;
    try {
      finished.cells.emplace(id, read_cell(file));
    } catch (const DamagedError& error) {
      finished.damaged.emplace(id, error.what());
    } catch (const InputError& error) {
      finished.unreadable.emplace(id, error.what());
    }
  }
  return finished;
}

CellRecord unmeasured(Row row, Status status, const std::string& reason) {
  row["status"] = std::string(name_of(status));
  row["reason"] = reason;
  return {std::move(row), {}, {}, {}};
}

std::vector<CellRecord> merge(const PlanRecord& plan, const std::map<std::string, CellRecord>& cells) {
  std::vector<CellRecord> records;
  std::set<std::string> seen;
  for (const Row& row : plan.rows) {
    const auto found = cells.find(text_in(row, "id"));
    if (found == cells.end()) {
      if (!text_in(row, "status").empty()) records.push_back({row, {}, {}, {}});
      continue;
    }
    CellRecord record;
    record.cell = found->second.cell;
    for (const auto& [name, value] : row) {
      if (value != Value(std::string())) record.cell[name] = value;  // "": not known before it ran
    }
    if (seen.insert(found->first).second) {
      record.layers = found->second.layers;
      record.samples = found->second.samples;
      record.rungs = found->second.rungs;
    }
    records.push_back(std::move(record));
  }
  return records;
}

Table read_result(const std::filesystem::path& output, std::string& note) {
  note.clear();
  const std::filesystem::path file = followed(output);
  const std::filesystem::path folder = cells_folder(file);
  if (!std::filesystem::exists(file) && file.extension() != ".h5") {
    throw InputError(output.string() + ": there is no such file; a result's name ends in .h5");
  }
  if (!lies_there(plan_file(folder))) return read_run(output);
  PlanRecord plan;
  try {
    plan = read_plan(folder);
  } catch (const InputError& error) {
    if (!std::filesystem::exists(file)) throw;
    note = error.what();
    return read_run(output);
  }
  if (is_written(file, plan)) return read_run(output);
  return so_far(file, plan, note);
}

}  // namespace kvlab
