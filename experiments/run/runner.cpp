#include "experiments/run/runner.hpp"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <iostream>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "core/base/clock.hpp"
#include "core/base/error.hpp"
#include "core/base/text.hpp"
#include "core/version.hpp"
#include "experiments/measure/machine.hpp"
#include "experiments/run/process.hpp"
#include "experiments/run/progress.hpp"
#include "experiments/run/warnings.hpp"
#include "results/atomic.hpp"
#include "results/lock.hpp"
#include "results/places.hpp"
#include "results/store.hpp"

namespace kvlab {
namespace {

volatile std::sig_atomic_t interrupted = 0;
void on_interrupt(int /*signal*/) { interrupted = 1; }

class Runner {
 public:
  Runner(const Experiment& experiment, const Plan& plan, const RunOptions& options)
      : experiment_(experiment),
        plan_(plan),
        options_(options),
        file_(followed(options.output)),
        folder_(cells_folder(file_)) {}

  int run() {
    started_ = utc_now();
    if (std::filesystem::is_directory(file_)) throw InputError(file_.string() + ": is a folder");
    std::error_code failure;
    std::filesystem::create_directories(folder_, failure);
    if (failure == std::errc::no_space_on_device) throw Error(folder_.string() + ": cannot be made: the disk is full");
    if (failure) throw InputError(folder_.string() + ": cannot be made: " + failure.message());
    const OutputLock lock(folder_);
    if (!lock.missing().empty()) {
      std::cerr << "warning: " << printable(folder_.string()) << ": this file system has no locks (" << lock.missing()
                << "): two runs that write here at once lose cells\n";
    }
    remove_left_behind(folder_, "");  // of runs that were killed
    remove_left_behind(file_.parent_path(), file_.filename().string());
    choose_pending();
    if (!pending_.empty()) {
      measure_machine();
      if (!run_pending()) {
        std::cerr << "interrupted: " << finished_ << " of " << pending_.size()
                  << " cells were finished; the same command goes on from there\n";
        return 130;
      }
    }
    return write_results();
  }

 private:
  [[nodiscard]] std::filesystem::path file_of(const Cell& cell) const { return cell_file(folder_, cell.id); }
  [[nodiscard]] static bool available(const Cell& cell) { return cell.backend == "cpu"; }

  void choose_pending();
  [[nodiscard]] bool is_done(const Cell& cell) const;
  void measure_machine();
  bool run_pending();
  void start(const Cell& cell);
  bool collect();
  [[nodiscard]] static CellRecord record_of(const Cell& cell, const WorkerProcess::End& end);
  void keep(const Cell& cell, CellRecord record);
  [[nodiscard]] CellRecord recorded(const Cell& cell) const;
  [[nodiscard]] Job job_of(const Cell& cell) const;
  int write_results();
  void adopt_peak(const Row& cell);
  [[nodiscard]] RunInfo describe(const std::vector<ColumnSpec>& swept) const;

  struct Running {
    const Cell* cell;
    std::unique_ptr<WorkerProcess> process;
  };

  const Experiment& experiment_;
  const Plan& plan_;
  const RunOptions& options_;
  std::filesystem::path file_;    // the run file
  std::filesystem::path folder_;  // of its cells
  std::string started_;
  std::vector<const Cell*> pending_;
  Turns turns_;  // of those that run side by side
  std::list<Running> running_;
  std::map<std::string, CellRecord> unsaved_;  // by id: those with no file
  std::unique_ptr<Progress> progress_;
  std::size_t finished_ = 0;
  std::size_t jobs_ = 1;
  WorkerLimits limits_{};
  double peak_read_ = std::numeric_limits<double>::quiet_NaN();
  double peak_copy_ = std::numeric_limits<double>::quiet_NaN();
};

void Runner::choose_pending() {
  std::set<std::string> seen;
  for (const auto& cell : plan_.cells) {
    if (!available(cell) || !seen.insert(cell.id).second) continue;
    if (options_.fresh || !is_done(cell)) pending_.push_back(&cell);
  }
  const std::size_t known = seen.size() - pending_.size();
  if (known > 0) std::cerr << known << " of " << seen.size() << " cells are done already\n";
}

// A cell file that is damaged is measured again; one that cannot be opened is left, and ends the run.
bool Runner::is_done(const Cell& cell) const {
  if (!std::filesystem::exists(file_of(cell))) return false;
  try {
    const CellRecord record = read_cell(file_of(cell));
    return !(options_.retry && is_failure(std::get<std::string>(record.cell.at("status"))));
  } catch (const DamagedError& error) {
    std::cerr << "measured again: " << message(error.what()) << '\n';
    return false;
  }
}

void Runner::measure_machine() {
  if (experiment_.measure.speed) {
    ThreadPool pool(static_cast<std::size_t>(experiment_.measure.threads));
    const PeakBandwidth peak = measure_peak_bandwidth(pool);
    peak_read_ = peak.read;
    peak_copy_ = peak.copy;
  }
  jobs_ = std::min(options_.jobs, pending_.size());
  const double share = 0.8 / static_cast<double>(jobs_);
  const auto free_share = static_cast<std::uint64_t>(share * static_cast<double>(available_memory_bytes()));
  limits_ = {experiment_.limits.seconds, experiment_.limits.memory.value_or(free_share)};
}

// False when interrupted; the workers are dead then.
bool Runner::run_pending() {
  struct sigaction action{};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  progress_ = std::make_unique<Progress>(pending_.size());
  std::size_t next = 0;
  while (next < pending_.size() || !running_.empty()) {
    if (interrupted != 0) {
      running_.clear();
      progress_.reset();
      return false;
    }
    while (next < pending_.size() && running_.size() < jobs_) start(*pending_[next++]);
    if (!collect()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    progress_->tick();
  }
  progress_.reset();
  return true;
}

void Runner::start(const Cell& cell) {
  progress_->started(cell.label());
  running_.push_back({&cell, std::make_unique<WorkerProcess>(job_of(cell), limits_, jobs_ > 1 ? &turns_ : nullptr)});
}

// Looks at each worker once; true when one has ended.
bool Runner::collect() {
  bool any = false;
  for (auto it = running_.begin(); it != running_.end();) {
    const auto end = it->process->poll();
    if (!end) {
      ++it;
      continue;
    }
    if (interrupted != 0 && end->status != Status::ok) return any;  // it may have died of the same signal
    const Cell& cell = *it->cell;
    keep(cell, record_of(cell, *end));
    ++finished_;
    it = running_.erase(it);
    any = true;
  }
  return any;
}

CellRecord with_status(const Cell& cell, Status status, const std::string& reason) {
  CellRecord record{cell.row(), {}, {}, {}};
  record.cell["status"] = std::string(name_of(status));
  record.cell["reason"] = message(reason);
  record.cell["log"] = std::string();
  return record;
}

CellRecord Runner::record_of(const Cell& cell, const WorkerProcess::End& end) {
  CellRecord record;
  if (end.status != Status::ok) {
    record = with_status(cell, end.status, end.reason);
  } else {
    try {
      record = cell_from_bytes(end.result, cell.id);
    } catch (const Error& error) {
      record = with_status(cell, Status::crashed, std::string("what the worker handed over: ") + error.what());
    }
  }
  record.cell["log"] = end.output;
  return record;
}

// Where its file cannot be written (a plugin has harmed the folder), the cell is a row all the same.
void Runner::keep(const Cell& cell, CellRecord record) {
  try {
    std::error_code ignored;
    std::filesystem::create_directories(folder_, ignored);
    write_atomically(file_of(cell), cell_to_bytes(record));
  } catch (const Error& error) {
    const auto log = record.cell["log"];
    record = with_status(cell, Status::failed, error.what());
    record.cell["log"] = log;
    unsaved_[cell.id] = record;
  }
  progress_->finished(cell.label(), std::get<std::string>(record.cell.at("status")),
                      std::get<std::string>(record.cell.at("reason")));
}

// A row each, also of those whose file cannot be read.
CellRecord Runner::recorded(const Cell& cell) const {
  if (!available(cell)) return with_status(cell, Status::skipped, "backend " + cell.backend + " is not in this build");
  if (const auto found = unsaved_.find(cell.id); found != unsaved_.end()) return found->second;
  try {
    return read_cell(file_of(cell));
  } catch (const Error& error) {
    return with_status(cell, Status::failed, error.what());
  }
}

Job Runner::job_of(const Cell& cell) const {
  Job job;
  job.row = cell.row();
  job.parameters = cell.parameters;
  job.workload = cell.portable_workload;
  for (const Method* method : cell.methods) job.plugins.push_back(method->path.string());
  job.seed = cell.seed;
  job.measure = experiment_.measure;
  job.peak_read = peak_read_;
  job.peak_copy = peak_copy_;
  return job;
}

int Runner::write_results() {
  const std::vector<ColumnSpec> swept = swept_columns(plan_);
  std::vector<CellRecord> records;
  std::set<std::string> seen;
  Warnings warnings;
  bool failed = false;
  for (const auto& cell : plan_.cells) {
    CellRecord record = recorded(cell);
    warnings.add(cell, std::get<std::string>(record.cell["log"]));
    record.cell["pipeline"] = cell.pipeline;  // this plan's labels
    record.cell["workload"] = cell.workload;
    add_swept(swept, cell, record.cell);
    if (!seen.insert(cell.id).second) {  // cells that are the same were measured once
      record.layers.clear();
      record.samples.clear();
      record.rungs.clear();
    }
    if (available(cell) && std::isnan(peak_read_)) adopt_peak(record.cell);
    failed = failed || is_failure(std::get<std::string>(record.cell.at("status")));
    records.push_back(std::move(record));
  }
  write_run(file_, describe(swept), records);
  warnings.print(std::cerr);
  return failed ? 1 : 0;
}

// Nothing was run now: the machine's peak is what an earlier start measured.
void Runner::adopt_peak(const Row& cell) {
  if (!cell.contains("peak_read_bandwidth")) return;
  peak_read_ = std::get<double>(cell.at("peak_read_bandwidth"));
  peak_copy_ = std::get<double>(cell.at("peak_copy_bandwidth"));
}

RunInfo Runner::describe(const std::vector<ColumnSpec>& swept) const {
  RunInfo info;
  info.attributes = {
      {"name", experiment_.name},  {"about", experiment_.about},        {"kvlab_version", std::string(version)},
      {"commit", options_.commit}, {"command", options_.command},       {"started", started_},
      {"ended", utc_now()},        {"peak_read_bandwidth", peak_read_}, {"peak_copy_bandwidth", peak_copy_}};
  for (auto& attribute : machine_attributes()) info.attributes.push_back(std::move(attribute));
  info.source = experiment_.source;
  Json expanded = Json::array();
  for (const auto& cell : plan_.cells) {
    expanded.push_back({{"id", cell.id},
                        {"pipeline", cell.pipeline},
                        {"workload", cell.workload},
                        {"backend", cell.backend},
                        {"repeat", cell.repeat},
                        {"seed", cell.seed},
                        {"parameters", cell.parameters}});
  }
  info.expanded = expanded.dump(1);
  info.swept = swept;
  return info;
}

}  // namespace

int run_plan(const Experiment& experiment, const Plan& plan, const RunOptions& options) {
  return Runner(experiment, plan, options).run();
}

}  // namespace kvlab
