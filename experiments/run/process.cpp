#include "experiments/run/process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <utility>

#include "core/base/child.hpp"
#include "core/base/error.hpp"
#include "core/registry/parameter.hpp"

namespace kvlab {
namespace {

constexpr int worker_timing_fd = 3;
constexpr int worker_calls_fd = 4;

// A file of memory that holds the job, to be read from its start.
int job_file(const std::string& text) {
  const int fd = memfd_create("kvlab-job", MFD_CLOEXEC);
  if (fd < 0 || write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw Error("cannot hand the cell to a worker");
  }
  lseek(fd, 0, SEEK_SET);
  return fd;
}

// A second descriptor of the same file, above those that a worker gets: no dup2 closes it before it is used.
int high(int fd) { return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 16); }

std::uint64_t resident_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  std::uint64_t total = 0;
  std::uint64_t resident = 0;
  file >> total >> resident;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

std::string gibibytes(std::uint64_t bytes) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.2f GiB", static_cast<double>(bytes) / 1073741824.0);
  return text.data();
}

// " in quantize's encode"
std::string place_of(const CallBoard& calls) {
  const std::string open = to_text(calls.open());
  return open.empty() ? "" : " in " + open;
}

std::string last_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace

WorkerProcess::WorkerProcess(const Job& job, const WorkerLimits& limits, int timing_fd)
    : calls_(std::make_unique<CallBoard>()), limits_(limits), start_(std::chrono::steady_clock::now()) {
  Job own = job;
  own.parent = getpid();
  own.timing_fd = timing_fd < 0 ? -1 : worker_timing_fd;
  own.calls_fd = worker_calls_fd;
  const int input = job_file(to_text(own));
  std::array<int, 2> pipe{};
  if (pipe2(pipe.data(), O_CLOEXEC) != 0) throw Error("cannot make a pipe for a worker");
  fcntl(pipe[0], F_SETFL, O_NONBLOCK);
  errors_ = pipe[0];

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipe[1], STDERR_FILENO);
  const int timing = high(timing_fd);
  const int calls = high(calls_->fd());
  if (timing >= 0) posix_spawn_file_actions_adddup2(&actions, timing, worker_timing_fd);
  posix_spawn_file_actions_adddup2(&actions, calls, worker_calls_fd);
  std::array<char, 6> name{"kvlab"};
  std::array<char, 8> command{"__cell"};
  const std::array<char*, 3> arguments{name.data(), command.data(), nullptr};
  // A group of its own: a Ctrl-C is the runner's to answer, and whatever a plugin starts is killed with its worker.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  const int failure = posix_spawn(&pid_, "/proc/self/exe", &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close(input);
  close(pipe[1]);
  if (timing >= 0) close(timing);
  close(calls);
  if (failure != 0) throw Error("cannot start a worker process");
}

WorkerProcess::~WorkerProcess() {
  if (pid_ > 0) kill_and_wait();
  if (errors_ >= 0) close(errors_);
}

WorkerProcess::WorkerProcess(WorkerProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      errors_(std::exchange(other.errors_, -1)),
      calls_(std::move(other.calls_)),
      last_words_(std::move(other.last_words_)),
      limits_(other.limits_),
      start_(other.start_) {}

std::optional<WorkerProcess::End> WorkerProcess::poll() {
  read_errors();
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    pid_ = -1;
    read_errors();
    return explain(status);
  }
  std::optional<End> end = over_limit();
  if (end) kill_and_wait();
  return end;
}

void WorkerProcess::read_errors() {
  constexpr std::size_t kept = 4096;
  std::array<char, 4096> buffer{};
  ssize_t count = 0;
  // A bounded number of reads: a worker that never stops writing must not hold the runner here.
  for (int i = 0; i < 64 && (count = read(errors_, buffer.data(), buffer.size())) > 0; ++i) {
    last_words_.append(buffer.data(), static_cast<std::size_t>(count));
    if (last_words_.size() > kept) last_words_.erase(0, last_words_.size() - kept);
  }
}

std::optional<WorkerProcess::End> WorkerProcess::over_limit() const {
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
  if (elapsed.count() > limits_.seconds) {
    return End{Status::timeout, "longer than the limit of " + text_of(limits_.seconds) + " s" + place_of(*calls_)};
  }
  const std::uint64_t resident = resident_of(pid_);
  if (resident > limits_.memory) {
    return End{Status::out_of_memory,
               gibibytes(resident) + " resident, the limit is " + gibibytes(limits_.memory) + place_of(*calls_)};
  }
  return std::nullopt;
}

void WorkerProcess::kill_and_wait() {
  kill(-pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

WorkerProcess::End WorkerProcess::explain(int wait_status) const {
  const std::string words = last_words_.empty() ? "" : "; it said: " + last_line(last_words_);
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    const std::string hint = signal == SIGKILL ? " (by the kernel, for want of memory?)" : "";
    return {Status::crashed, "the worker died of " + signal_name(signal) + hint + place_of(*calls_) + words};
  }
  if (WEXITSTATUS(wait_status) != 0) {
    const std::string code = std::to_string(WEXITSTATUS(wait_status));
    return {Status::crashed, "the worker ended with exit code " + code + place_of(*calls_) + words};
  }
  const std::string place = place_of(*calls_);
  if (!place.empty()) return {Status::crashed, "the worker ended without a result" + place + words};
  return {Status::ok, ""};
}

}  // namespace kvlab
