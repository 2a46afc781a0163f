// A worker process as its runner sees it: started, watched, killed where it goes too far.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "core/method/calls.hpp"
#include "experiments/measure/turn.hpp"
#include "experiments/run/job.hpp"
#include "experiments/run/output.hpp"
#include "experiments/run/tree.hpp"
#include "results/schema.hpp"

namespace kvlab {

struct WorkerLimits {
  double seconds;        // but for those that it waits for another's turn
  std::uint64_t memory;  // bytes, of all that it started together: ProcessTree
};

class WorkerProcess {
 public:
  // Starts kvlab again, under a keeper. `turns` is null where it runs alone.
  WorkerProcess(const Job& job, const WorkerLimits& limits, Turns* turns);
  ~WorkerProcess();  // kills what still runs
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  // How it ended. Nothing while it runs. What it started has ended as well.
  struct End {
    Status status = Status::ok;
    std::string reason;  // why it is not ok, and in which call of which method
    std::string result;  // what it handed over: where ok
    std::string output;  // WorkerOutput::text()
  };
  std::optional<End> poll();

 private:
  using Clock = std::chrono::steady_clock;

  [[nodiscard]] std::optional<End> over_limit();
  void kill_and_wait();
  [[nodiscard]] End explain(int wait_status) const;
  [[nodiscard]] std::string result() const;

  WorkerLimits limits_;
  CallBoard calls_;
  int result_ = -1;  // a file of memory
  std::optional<TurnLine> turn_;
  std::optional<WorkerOutput> output_;
  pid_t pid_ = -1;  // the keeper's
  std::optional<ProcessTree> tree_;
  Clock::time_point last_poll_;
  Clock::duration used_{};  // of the limit
};

}  // namespace kvlab
