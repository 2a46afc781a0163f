#include "core/base/child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <exception>
#include <fstream>
#include <new>

#include "core/base/error.hpp"

namespace kvlab {
namespace {

using Clock = std::chrono::steady_clock;

std::uint64_t allowed_memory = 0;  // this process's, if it is such a child

// 10 s, 0.5 s
std::string seconds_text(double seconds) {
  std::string text = std::to_string(std::lround(seconds * 10));
  if (text.size() == 1) text.insert(0, "0");
  text.insert(text.size() - 1, ".");
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text + " s";
}

void write_all(int fd, const std::string& text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = write(fd, text.data() + done, text.size() - done);
    if (count <= 0) return;
    done += static_cast<std::size_t>(count);
  }
}

void limit(__rlimit_resource what, std::uint64_t soft, std::uint64_t more) {
  rlimit limits{};
  getrlimit(what, &limits);
  limits.rlim_cur = std::min<rlim_t>(soft, limits.rlim_max);
  if (more > 0) limits.rlim_max = std::min<rlim_t>(soft + more, limits.rlim_max);
  setrlimit(what, &limits);
}

void be_quiet() {
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (null >= 0) dup2(null, fd);
  }
}

void be_limited(const ChildLimits& limits) {
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  if (limits.memory > 0) allow_memory(limits.memory);
  // The processor time of a fork begins at 0. A second after the signal that can be caught comes the other.
  if (limits.cpu_seconds > 0) limit(RLIMIT_CPU, static_cast<std::uint64_t>(std::ceil(limits.cpu_seconds)), 1);
  for (const int deadly : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGXCPU, SIGINT, SIGTERM}) signal(deadly, SIG_DFL);
}

// The child: one byte says how it went, then the text.
[[noreturn]] void be_child(int out, pid_t parent, const std::function<std::string()>& work, const ChildLimits& limits) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // the parent died before this line
  setpgid(0, 0);
  be_quiet();
  be_limited(limits);
  std::string answer;
  try {
    answer = "+" + work();
  } catch (const std::bad_alloc&) {
    const std::string most = allowed_memory > 0 ? "than " + std::to_string(allowed_memory >> 20) + " MiB of memory"
                                                : "memory than the system gives";
    answer = "-" + limits.doing + " needs more " + most;
  } catch (const std::exception& error) {
    answer = std::string("-") + error.what();
  } catch (...) {
    answer = "-an unknown exception";
  }
  write_all(out, answer);
  _exit(0);
}

// True once the child has ended; its process id stays taken until it is reaped.
bool has_ended(pid_t child) {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child;
}

// Whether a process, all of its threads, stands still.
class Idle {
 public:
  Idle(pid_t process, double seconds) : seconds_(seconds), is_known_(clock_getcpuclockid(process, &clock_) == 0) {}

  // That it has used no processor for so long.
  bool is_over() {
    timespec used{};
    if (seconds_ <= 0 || !is_known_ || clock_gettime(clock_, &used) != 0) return false;
    const auto now = Clock::now();
    if (used.tv_sec != used_.tv_sec || used.tv_nsec != used_.tv_nsec) {
      used_ = used;
      since_ = now;
    }
    return now - since_ > std::chrono::duration<double>(seconds_);
  }

 private:
  double seconds_;
  clockid_t clock_{};
  bool is_known_;
  timespec used_{};
  Clock::time_point since_ = Clock::now();
};

enum class Heard : std::uint8_t { all, late, idle };

// Reads until the child has ended, also where something it started holds the pipe open, or until its time is over.
Heard listen(pid_t child, int pipe, const ChildLimits& limits, std::string& answer) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(limits.seconds);
  Idle idle(child, limits.idle_seconds);
  std::array<char, 65536> buffer{};
  bool open = true;
  while (true) {
    const bool ended = has_ended(child);
    ssize_t count = 0;
    while (open && (count = read(pipe, buffer.data(), buffer.size())) > 0) {
      answer.append(buffer.data(), static_cast<std::size_t>(count));
    }
    if (count == 0) open = false;
    if (ended) return Heard::all;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left < 0) return Heard::late;
    if (idle.is_over()) return Heard::idle;
    pollfd wait{pipe, POLLIN, 0};
    constexpr std::int64_t pause = 50;
    poll(&wait, open ? 1 : 0, static_cast<int>(std::min<std::int64_t>(left + 1, open ? pause : 1)));
  }
}

std::string how_it_ended(int status, const ChildLimits& limits) {
  if (!WIFSIGNALED(status)) {
    return limits.doing + " ends the process (exit " + std::to_string(WEXITSTATUS(status)) + ")";
  }
  const int signal = WTERMSIG(status);
  if (signal == SIGXCPU) return limits.doing + " takes longer than " + seconds_text(limits.cpu_seconds);
  return limits.doing + " crashes (" + signal_name(signal) + ")";
}

}  // namespace

void allow_memory(std::uint64_t memory) {
  std::ifstream file("/proc/self/statm");
  std::uint64_t pages = 0;
  file >> pages;
  allowed_memory = memory;
  limit(RLIMIT_AS, pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) + memory, 0);
}

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? std::string("SIG") + name : "signal " + std::to_string(signal);
}

ChildResult in_child(const std::function<std::string()>& work, const ChildLimits& limits) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("cannot make a pipe");
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    be_child(ends[1], parent, work, limits);
  }
  close(ends[1]);
  if (child < 0) {
    close(ends[0]);
    throw Error("cannot start a process");
  }
  setpgid(child, child);  // here too, so that the group is there whoever comes first
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  std::string answer;
  const Heard heard = listen(child, ends[0], limits, answer);
  close(ends[0]);
  kill(-child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (heard == Heard::late) return {false, limits.doing + " takes longer than " + seconds_text(limits.seconds)};
  if (heard == Heard::idle) {
    return {false, limits.doing + " stands still: it used no processor for " + seconds_text(limits.idle_seconds)};
  }
  if (WIFSIGNALED(status) || answer.empty()) return {false, how_it_ended(status, limits)};
  return {answer[0] == '+', answer.substr(1)};
}

}  // namespace kvlab
