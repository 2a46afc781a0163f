// A worker process as its runner sees it: started, watched, killed where it goes too far.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "core/method/calls.hpp"
#include "experiments/run/job.hpp"
#include "results/schema.hpp"

namespace kvlab {

struct WorkerLimits {
  double seconds;
  std::uint64_t memory;  // bytes resident
};

class WorkerProcess {
 public:
  // Starts kvlab again, as a worker. `timing_fd` is inherited.
  WorkerProcess(const Job& job, const WorkerLimits& limits, int timing_fd);
  ~WorkerProcess();  // kills what still runs
  WorkerProcess(WorkerProcess&& other) noexcept;
  WorkerProcess& operator=(WorkerProcess&&) = delete;
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  // How it ended: `ok` when it wrote its cell file, else why it could not. Nothing while it runs.
  struct End {
    Status status;
    std::string reason;
  };
  std::optional<End> poll();

 private:
  void read_errors();
  [[nodiscard]] std::optional<End> over_limit() const;
  void kill_and_wait();
  [[nodiscard]] End explain(int wait_status) const;

  pid_t pid_ = -1;
  int errors_ = -1;  // what it writes to stderr
  std::unique_ptr<CallBoard> calls_;
  std::string last_words_;  // the end of that
  WorkerLimits limits_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace kvlab
