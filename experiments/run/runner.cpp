#include "experiments/run/runner.hpp"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <iostream>
#include <limits>
#include <list>
#include <memory>
#include <set>
#include <thread>

#include "core/backend/cpu/cpu_backend.hpp"
#include "core/base/clock.hpp"
#include "core/base/error.hpp"
#include "core/base/text.hpp"
#include "core/version.hpp"
#include "experiments/measure/machine.hpp"
#include "experiments/run/destination.hpp"
#include "experiments/run/process.hpp"
#include "experiments/run/progress.hpp"
#include "experiments/run/resume.hpp"
#include "experiments/run/warnings.hpp"
#include "results/atomic.hpp"
#include "results/finished.hpp"
#include "results/places.hpp"
#include "results/store.hpp"

namespace kvlab {
namespace {

volatile std::sig_atomic_t interrupted = 0;
void on_interrupt(int /*signal*/) { interrupted = 1; }

bool is_whole(const Plan& plan) {
  return std::all_of(plan.cells.begin(), plan.cells.end(), [](const Cell& cell) { return cell.chosen; });
}

class Runner {
 public:
  Runner(const Experiment& experiment, const Plan& plan, const RunOptions& options)
      : experiment_(experiment),
        plan_(plan),
        options_(options),
        record_(record_of(experiment, plan, options.command)),
        output_(options.output, record_, {options.replace, is_whole(plan)}) {}

  int run() {
    set_limits(chosen());
    resume_ = resume(plan_, output_.folder(), {options_.fresh, options_.retry, limits_});
    set_limits(resume_.pending.size());  // fewer cells have more memory each
    set_too_large_apart(plan_, resume_, limits_, available_memory_bytes());
    if (!resume_.pending.empty()) {
      measure_machine();
      if (!run_pending()) {
        std::cerr << "interrupted: " << finished_ << " of " << resume_.pending.size()
                  << " cells were finished; the same command "
                  << (options_.fresh ? "without --fresh goes on from there, earlier cells kept" : "goes on from there")
                  << ", and 'kvlab show " << printable(options_.output.string()) << "' shows what is done\n";
        return 130;
      }
    }
    return write_results();
  }

 private:
  [[nodiscard]] std::filesystem::path file_of(const Cell& cell) const { return cell_file(output_.folder(), cell.id); }

  [[nodiscard]] std::size_t chosen() const;
  void set_limits(std::size_t cells);
  void measure_machine();
  bool run_pending();
  void start(const Cell& cell);
  bool collect();
  [[nodiscard]] CellRecord record_of_end(const Cell& cell, const WorkerProcess::End& end) const;
  void keep(const Cell& cell, CellRecord record);
  [[nodiscard]] Job job_of(const Cell& cell) const;
  int write_results();
  void adopt_peak(const Row& cell);
  [[nodiscard]] RunInfo describe() const;

  struct Running {
    const Cell* cell;
    std::unique_ptr<WorkerProcess> process;
  };

  const Experiment& experiment_;
  const Plan& plan_;
  const RunOptions& options_;
  PlanRecord record_;
  Destination output_;
  Resume resume_;
  Turns turns_;  // of those that run side by side
  std::list<Running> running_;
  std::unique_ptr<Progress> progress_;
  std::size_t finished_ = 0;
  std::size_t jobs_ = 1;
  WorkerLimits limits_{};
  double peak_read_ = std::numeric_limits<double>::quiet_NaN();
  double peak_copy_ = std::numeric_limits<double>::quiet_NaN();
};

std::size_t Runner::chosen() const {
  std::set<std::string> ids;
  for (const auto& cell : plan_.cells) {
    if (cell.chosen && cell.runs_here()) ids.insert(cell.id);
  }
  return ids.size();
}

void Runner::set_limits(std::size_t cells) {
  jobs_ = std::max<std::size_t>(1, std::min(options_.jobs, cells));
  const double share = 0.8 / static_cast<double>(jobs_);
  const auto free_share = static_cast<std::uint64_t>(share * static_cast<double>(available_memory_bytes()));
  limits_ = {experiment_.limits.seconds, experiment_.limits.memory.value_or(free_share)};
}

void Runner::measure_machine() {
  if (experiment_.measure.speed) {
    CpuBackend backend(static_cast<std::size_t>(experiment_.measure.threads));
    const PeakBandwidth peak = backend.measure_peak_bandwidth(available_memory_bytes() / 4);
    peak_read_ = peak.read;
    peak_copy_ = peak.copy;
  }
}

// False when interrupted; the workers are dead then.
bool Runner::run_pending() {
  struct sigaction action{};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  progress_ = std::make_unique<Progress>(resume_.pending.size());
  std::size_t next = 0;
  while (next < resume_.pending.size() || !running_.empty()) {
    if (interrupted != 0) {
      running_.clear();
      progress_.reset();
      return false;
    }
    while (next < resume_.pending.size() && running_.size() < jobs_) start(*resume_.pending[next++]);
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
    keep(*it->cell, record_of_end(*it->cell, *end));
    ++finished_;
    it = running_.erase(it);
    any = true;
  }
  return any;
}

CellRecord Runner::record_of_end(const Cell& cell, const WorkerProcess::End& end) const {
  CellRecord record;
  if (end.status != Status::ok) {
    record = unmeasured(cell.row(), end.status, message(end.reason));
  } else {
    try {
      record = cell_from_bytes(end.result, cell.id);
    } catch (const Error& error) {
      record =
          unmeasured(cell.row(), Status::crashed, message(std::string("what the worker handed over: ") + error.what()));
    }
  }
  record.cell["log"] = end.output;
  const auto& status = std::get<std::string>(record.cell.at("status"));
  if (status == name_of(Status::timeout)) record.cell["limit_seconds"] = limits_.seconds;
  if (status == name_of(Status::out_of_memory)) {
    record.cell["limit_memory_bytes"] = static_cast<double>(limits_.memory);
  }
  return record;
}

// Where its file cannot be written (a plugin has harmed the folder), the cell is a row all the same.
void Runner::keep(const Cell& cell, CellRecord record) {
  try {
    std::error_code ignored;
    std::filesystem::create_directories(output_.folder(), ignored);
    write_atomically(file_of(cell), cell_to_bytes(record));
  } catch (const Error& error) {
    const auto log = record.cell["log"];
    record = unmeasured(cell.row(), Status::failed, message(error.what()));
    record.cell["log"] = log;
  }
  progress_->finished(cell.label(), std::get<std::string>(record.cell.at("status")),
                      std::get<std::string>(record.cell.at("reason")));
  resume_.known[cell.id] = std::move(record);
}

Job Runner::job_of(const Cell& cell) const {
  Job job;
  job.row = cell.row();
  job.parameters = cell.parameters;
  job.workload = cell.portable_workload;
  for (const Method* method : cell.methods) job.plugins.push_back({method->path, method->hash});
  job.seed = cell.seed;
  job.measure = experiment_.measure;
  job.peak_read = peak_read_;
  job.peak_copy = peak_copy_;
  return job;
}

int Runner::write_results() {
  Warnings warnings;
  bool failed = false;
  for (const auto& cell : plan_.cells) {
    const auto known = resume_.known.find(cell.id);
    if (known == resume_.known.end()) continue;
    Row& row = known->second.cell;
    if (const auto log = row.find("log"); log != row.end()) warnings.add(cell, std::get<std::string>(log->second));
    if (std::isnan(peak_read_)) adopt_peak(row);
    failed = failed || (cell.chosen && is_failure(std::get<std::string>(row.at("status"))));
  }
  const std::vector<CellRecord> records = merge(record_, resume_.known);
  if (records.size() < record_.rows.size()) {
    std::cerr << record_.rows.size() - records.size() << " of " << record_.rows.size()
              << " cells of the plan are not measured yet, and not in the result\n";
  }
  write_run(output_.file(), describe(), records);
  warnings.print(std::cerr);
  return failed ? 1 : 0;
}

// Nothing was run now: the machine's peak is what an earlier start measured.
void Runner::adopt_peak(const Row& cell) {
  if (!cell.contains("peak_read_bandwidth")) return;
  peak_read_ = std::get<double>(cell.at("peak_read_bandwidth"));
  peak_copy_ = std::get<double>(cell.at("peak_copy_bandwidth"));
}

RunInfo Runner::describe() const {
  RunInfo info;
  info.attributes = {{"name", experiment_.name},
                     {"about", experiment_.about},
                     {"kvlab_version", std::string(version)},
                     {"commit", options_.commit},
                     {"command", options_.command},
                     {"started", record_.started},
                     {"ended", utc_now()},
                     {"run", record_.run},
                     {"planned_cells", static_cast<std::int64_t>(record_.rows.size())},
                     {"peak_read_bandwidth", peak_read_},
                     {"peak_copy_bandwidth", peak_copy_}};
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
  info.swept = record_.swept;
  return info;
}

}  // namespace

int run_plan(const Experiment& experiment, const Plan& plan, const RunOptions& options) {
  return Runner(experiment, plan, options).run();
}

}  // namespace kvlab
