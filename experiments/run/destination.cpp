#include "experiments/run/destination.hpp"

#include <unistd.h>

#include <array>
#include <chrono>
#include <iostream>
#include <set>

#include "core/base/clock.hpp"
#include "core/base/error.hpp"
#include "core/base/hash.hpp"
#include "core/base/text.hpp"
#include "results/atomic.hpp"
#include "results/finished.hpp"
#include "results/places.hpp"
#include "results/store.hpp"

namespace kvlab {
namespace {

// One for each start, on whatever machine.
std::string new_run() {
  std::array<char, 256> host{};
  static_cast<void>(gethostname(host.data(), host.size() - 1));
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  return hash_of(std::string(host.data()) + ' ' + std::to_string(getpid()) + ' ' + std::to_string(now));
}

// A pipe's path says nothing of what came through it.
std::string own_path(const std::string& file) {
  std::error_code failure;
  if (!std::filesystem::is_regular_file(file, failure)) return "";
  const auto path = std::filesystem::canonical(file, failure);
  return failure ? "" : path.string();
}

std::set<std::string> ids_of(const PlanRecord& plan) {
  std::set<std::string> ids;
  for (const Row& row : plan.rows) ids.insert(std::get<std::string>(row.at("id")));
  return ids;
}

// Of the plan's cells, those with a file.
std::size_t finished_of(const PlanRecord& plan, const std::filesystem::path& folder, const std::set<std::string>& but) {
  std::size_t count = 0;
  for (const auto& id : ids_of(plan)) {
    if (!but.contains(id) && std::filesystem::exists(cell_file(folder, id))) ++count;
  }
  return count;
}

}  // namespace

PlanRecord record_of(const Experiment& experiment, const Plan& plan, const std::string& command) {
  PlanRecord record;
  record.run = new_run();
  record.file = own_path(experiment.file);
  record.source = experiment.source;
  record.assignments = experiment.assignments;
  record.command = command;
  record.started = utc_now();
  const std::vector<SweptColumn> swept = swept_columns(plan);
  for (const SweptColumn& column : swept) record.swept.push_back(column.spec);
  for (const auto& cell : plan.cells) {
    Row row = cell.row();
    add_swept(swept, cell, row);
    if (!cell.runs_here()) {
      row = unmeasured(std::move(row), Status::skipped, "backend " + cell.backend + " is not in this build").cell;
    }
    record.rows.push_back(std::move(row));
  }
  return record;
}

Destination::Destination(const std::filesystem::path& output, const PlanRecord& plan, const Replacing& how)
    : file_(followed(output)), folder_(cells_folder(file_)) {
  if (std::filesystem::is_directory(file_)) throw InputError(file_.string() + ": is a folder");
  // Before a folder is made; where there is one, once it is locked.
  if (!std::filesystem::exists(folder_)) refuse_another(plan, how);
  std::error_code failure;
  std::filesystem::create_directories(folder_, failure);
  if (failure == std::errc::no_space_on_device) throw Error(folder_.string() + ": cannot be made: the disk is full");
  if (failure) throw InputError(folder_.string() + ": cannot be made: " + failure.message());
  lock_ = std::make_unique<OutputLock>(folder_);
  if (!lock_->missing().empty()) {
    std::cerr << "warning: " << printable(folder_.string()) << ": this file system has no locks (" << lock_->missing()
              << "): two runs that write here at once lose cells\n";
  }
  refuse_another(plan, how);
  remove_left_behind(folder_, "");  // of runs that were killed
  remove_left_behind(file_.parent_path(), file_.filename().string());
  say_what_is_left_out(plan);
  if (!unreadable_.empty()) {
    std::cerr << message(unreadable_) << "; it is now " << printable(set_aside(plan_file(folder_), "aside").string())
              << '\n';
  }
  write_plan(folder_, plan);
}

void Destination::refuse_another(const PlanRecord& plan, const Replacing& how) {
  const std::filesystem::path path = plan_file(folder_);
  earlier_.reset();
  if (lies_there(path)) {
    try {
      earlier_ = read_plan(folder_);
    } catch (const DamagedError& error) {
      unreadable_ = error.what();
    } catch (const InputError& error) {
      if (!how.replace) throw InputError(std::string(error.what()) + "; --replace sets it aside");
      unreadable_ = error.what();
    }
  }
  if (how.replace) return;
  if (!earlier_) {
    refuse_unknown(plan, how.whole);
  } else if (!same_experiment(*earlier_, plan) &&
             (std::filesystem::exists(file_) || finished_of(*earlier_, folder_, {}) > 0)) {
    throw InputError(file_.string() + ": here is the result of another experiment, " +
                     (earlier_->file.empty() ? "read from a pipe" : earlier_->file) +
                     "; --replace replaces it, -o writes elsewhere");
  }
}

// A run file without a plan: its cells were removed, it is of an earlier kvlab, or no result at all.
void Destination::refuse_unknown(const PlanRecord& plan, bool whole) const {
  if (!std::filesystem::exists(file_)) return;
  const std::string ways = "; --replace replaces it, -o writes elsewhere";
  std::string source;
  try {
    source = read_origin(file_).source;
  } catch (const InputError& error) {
    throw InputError(std::string(error.what()) + ways);
  }
  if (source != plan.source) {
    throw InputError(file_.string() + ": here is the result of another experiment, or of another text of this one" +
                     ways);
  }
  if (!whole && finished_of(plan, folder_, {}) == 0) {
    throw InputError(file_.string() + ": its cells (" + folder_.string() +
                     ") are gone, so --only would leave the rows of the others out of it; run them all" + ways);
  }
}

void Destination::say_what_is_left_out(const PlanRecord& plan) const {
  if (!earlier_) return;
  const std::size_t left = finished_of(*earlier_, folder_, ids_of(plan));
  if (left == 0) return;
  std::cerr << left << " finished cells of the earlier result are not in this one; their files stay in "
            << printable(folder_.string()) << '\n';
}

}  // namespace kvlab
