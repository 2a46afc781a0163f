#include "experiments/run/process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "core/base/child.hpp"
#include "core/base/error.hpp"
#include "core/base/text.hpp"
#include "core/registry/parameter.hpp"

namespace kvlab {
namespace {

int memory_file(const char* name) {
  const int fd = memfd_create(name, MFD_CLOEXEC);
  if (fd < 0) throw Error("cannot make memory to share with a worker");
  return fd;
}

// A file of memory that holds the job, to be read from its start.
int job_file(const std::string& text) {
  const int fd = memory_file("kvlab-job");
  if (write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    close(fd);
    throw Error("cannot hand the cell to a worker");
  }
  lseek(fd, 0, SEEK_SET);
  return fd;
}

// A descriptor of this process, and its number in the worker.
struct Inherited {
  int fd;
  int number;
};

// kvlab again, as a worker. All other descriptors are closed on exec.
pid_t spawn_worker(const std::vector<Inherited>& inherited) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // By way of numbers above those of the worker's: so that no dup2 closes one that is yet to be used.
  std::vector<int> high;
  for (const auto& [fd, number] : inherited) {
    high.push_back(fcntl(fd, F_DUPFD_CLOEXEC, worker_result_fd + 1));
    posix_spawn_file_actions_adddup2(&actions, high.back(), number);
  }
  std::array<char, 6> name{"kvlab"};
  std::array<char, 8> command{"__cell"};
  const std::array<char*, 3> arguments{name.data(), command.data(), nullptr};
  // A group of its own: a Ctrl-C is the runner's to answer.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  pid_t pid = -1;
  const int failure = posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  for (const int fd : high) close(fd);
  if (failure != 0) throw Error("cannot start a worker process");
  return pid;
}

// " in quantize's encode"
std::string place_of(const CallBoard& calls) {
  const std::string open = to_text(calls.open());
  return open.empty() ? "" : " in " + open;
}

}  // namespace

WorkerProcess::WorkerProcess(const Job& job, const WorkerLimits& limits, Turns* turns)
    : limits_(limits), result_(memory_file("kvlab-result")), last_poll_(Clock::now()) {
  std::array<int, 2> pipe{};
  if (pipe2(pipe.data(), O_CLOEXEC) != 0) throw Error("cannot make a pipe for a worker");
  output_.emplace(pipe[0]);
  Job own = job;
  own.parent = getpid();
  own.timing_fd = turns == nullptr ? -1 : worker_turn_fd;
  const int input = job_file(to_text(own));
  std::vector<Inherited> inherited{{input, STDIN_FILENO},
                                   {pipe[1], STDOUT_FILENO},
                                   {pipe[1], STDERR_FILENO},
                                   {calls_.fd(), worker_calls_fd},
                                   {result_, worker_result_fd}};
  if (turns != nullptr) {
    turn_.emplace(*turns);
    inherited.push_back({turn_->worker_end(), worker_turn_fd});
  }
  pid_ = spawn_worker(inherited);
  tree_.emplace(pid_);
  if (turn_) turn_->close_worker_end();
  close(input);
  close(pipe[1]);
}

WorkerProcess::~WorkerProcess() {
  if (pid_ > 0) kill_and_wait();
  close(result_);
}

std::optional<WorkerProcess::End> WorkerProcess::poll() {
  output_->read();
  std::optional<End> end;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    pid_ = -1;
    end = explain(status);
  } else {
    end = over_limit();
    if (end) kill_and_wait();
  }
  if (!end) return end;
  turn_.reset();
  output_->read();
  end->output = output_->text();
  const std::string words = output_->last_line();
  if (end->status != Status::ok && !words.empty()) end->reason += "; it said: " + words;
  return end;
}

std::optional<WorkerProcess::End> WorkerProcess::over_limit() {
  const auto now = Clock::now();
  const auto since = now - std::exchange(last_poll_, now);
  if (!turn_ || !turn_->waits()) used_ += since;
  if (std::chrono::duration<double>(used_).count() > limits_.seconds) {
    const std::string place = place_of(calls_);
    return End{Status::timeout,
               "longer than the limit of " + text_of(limits_.seconds) + " s" + (place.empty() ? "" : "," + place), "",
               ""};
  }
  if (const std::uint64_t held = tree_->memory(limits_.memory); held > limits_.memory) {
    const std::string place = place_of(calls_);
    return End{
        Status::out_of_memory,
        size_text(held) + " resident, the limit is " + size_text(limits_.memory) + (place.empty() ? "" : "," + place),
        "", ""};
  }
  return std::nullopt;
}

// The keeper ends all the others; one that a plugin has stopped goes on first.
void WorkerProcess::kill_and_wait() {
  kill(pid_, SIGTERM);
  kill(pid_, SIGCONT);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

WorkerProcess::End WorkerProcess::explain(int wait_status) const {
  const std::string place = place_of(calls_);
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    const std::string hint = signal == SIGKILL ? " (by the kernel, for want of memory?)" : "";
    return {Status::crashed, "the worker died of " + signal_name(signal) + hint + place, "", ""};
  }
  if (WEXITSTATUS(wait_status) != 0) {
    const std::string code = std::to_string(WEXITSTATUS(wait_status));
    return {Status::crashed, "the worker ended with exit code " + code + place, "", ""};
  }
  End end{Status::ok, "", result(), ""};
  if (end.result.empty()) end = {Status::crashed, "the worker ended without a result" + place, "", ""};
  return end;
}

// Empty where there is none, or more than any cell's.
std::string WorkerProcess::result() const {
  constexpr off_t most = off_t{1} << 30;
  struct stat file{};
  if (fstat(result_, &file) != 0 || file.st_size > most) return "";
  std::string bytes(static_cast<std::size_t>(file.st_size), '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = pread(result_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (count <= 0) return "";
    done += static_cast<std::size_t>(count);
  }
  return bytes;
}

}  // namespace kvlab
