// The worker: one cell in a process of its own, so that whatever its plugins do hurts nobody else.
#include <sys/stat.h>
#include <unistd.h>

#include <iostream>
#include <iterator>
#include <new>

#include "core/backend/cpu/cpu_backend.hpp"
#include "core/base/error.hpp"
#include "core/base/text.hpp"
#include "core/method/calls.hpp"
#include "experiments/run/job.hpp"
#include "experiments/run/keeper.hpp"
#include "experiments/run/measurement.hpp"

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
    CpuBackend backend(static_cast<std::size_t>(job.measure.threads));
    record.cell["threads"] = static_cast<double>(backend.threads());
    measure_cell(job, backend, record);
  } catch (const MethodError& error) {
    give_up(status_of(error), error.what());
  } catch (const std::bad_alloc&) {
    give_up(Status::out_of_memory, "the system gives no more memory");
  } catch (const std::exception& error) {
    give_up(Status::failed, error.what());
  }
  return record;
}

// Where the runner looks for the cell; a plugin that closes what it did not open must not send it elsewhere.
class ResultFile {
 public:
  ResultFile() { fstat(worker_result_fd, &file_); }

  void write(const std::string& bytes) const {
    struct stat now{};
    if (fstat(worker_result_fd, &now) != 0 || now.st_dev != file_.st_dev || now.st_ino != file_.st_ino) {
      throw Error("a plugin closed a file that was not its own: there is no place for the result");
    }
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t count =
          pwrite(worker_result_fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
      if (count <= 0) throw Error("the result cannot be handed over");
      done += static_cast<std::size_t>(count);
    }
  }

 private:
  struct stat file_{};
};

}  // namespace

int run_worker() {
  const Job job = parse_job(std::string(std::istreambuf_iterator<char>(std::cin), {}));
  start_under_keeper(static_cast<pid_t>(job.parent));
  const ResultFile result;
  CallBoard calls(worker_calls_fd);
  calls.publish();
  result.write(cell_to_bytes(attempt(job)));
  return 0;
}

}  // namespace kvlab
