// The worker: one cell in a process of its own, so that whatever its plugins do hurts nobody else.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <iostream>
#include <iterator>
#include <new>

#include "core/base/error.hpp"
#include "core/base/text.hpp"
#include "core/method/calls.hpp"
#include "experiments/run/job.hpp"
#include "experiments/run/measurement.hpp"
#include "results/atomic.hpp"

namespace kvlab {
namespace {

Status status_of(const MethodError& error) {
  switch (error.status) {
    case KVLAB_UNSUPPORTED:
      return Status::unsupported;
    case KVLAB_OUT_OF_MEMORY:
      return Status::out_of_memory;
    default:
      return Status::failed;
  }
}

// Measures; what goes wrong becomes a status and a reason.
CellRecord attempt(const Job& job) {
  CellRecord record;
  const auto give_up = [&](Status status, const std::string& reason) {
    record = {job.row, {}, {}, {}};
    record.cell["status"] = std::string(name_of(status));
    record.cell["reason"] = message(reason);
  };
  record.cell = job.row;
  record.cell["status"] = std::string(name_of(Status::ok));
  try {
    ThreadPool pool(static_cast<std::size_t>(job.measure.threads));
    record.cell["threads"] = static_cast<double>(pool.threads());
    measure_cell(job, pool, record);
  } catch (const MethodError& error) {
    give_up(status_of(error), error.what());
  } catch (const std::bad_alloc&) {
    give_up(Status::out_of_memory, "the system gives no more memory");
  } catch (const std::exception& error) {
    give_up(Status::failed, error.what());
  }
  return record;
}

}  // namespace

int run_worker() {
  const Job job = parse_job(std::string(std::istreambuf_iterator<char>(std::cin), {}));
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != job.parent) return 1;  // the runner died before this line
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  CallBoard calls(job.calls_fd);
  calls.publish();
  write_atomically(job.cell_file, cell_to_bytes(attempt(job)));
  return 0;
}

}  // namespace kvlab
