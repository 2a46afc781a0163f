#include "core/base/child.hpp"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <exception>

#include "core/base/error.hpp"

namespace kvlab {
namespace {

void write_all(int fd, const std::string& text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = write(fd, text.data() + done, text.size() - done);
    if (count <= 0) return;
    done += static_cast<std::size_t>(count);
  }
}

// The child: one byte says how it went, then the text.
[[noreturn]] void be_child(int out, const std::function<std::string()>& work, unsigned seconds) {
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (null >= 0) dup2(null, STDERR_FILENO);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  for (const int deadly : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) signal(deadly, SIG_DFL);
  alarm(seconds);
  std::string answer;
  try {
    answer = "+" + work();
  } catch (const std::exception& error) {
    answer = std::string("-") + error.what();
  } catch (...) {
    answer = "-an unknown exception";
  }
  write_all(out, answer);
  _exit(0);
}

}  // namespace

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? std::string("SIG") + name : "signal " + std::to_string(signal);
}

ChildResult in_child(const std::function<std::string()>& work, unsigned seconds) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("cannot make a pipe");
  const pid_t child = fork();
  if (child < 0) throw Error("cannot start a process");
  if (child == 0) {
    close(ends[0]);
    be_child(ends[1], work, seconds);
  }
  close(ends[1]);
  std::string answer;
  std::array<char, 4096> buffer{};
  ssize_t count = 0;
  while ((count = read(ends[0], buffer.data(), buffer.size())) > 0) {
    answer.append(buffer.data(), static_cast<std::size_t>(count));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    if (signal == SIGALRM) return {false, "opening it took longer than " + std::to_string(seconds) + " s"};
    return {false, "opening it crashes (" + signal_name(signal) + ")"};
  }
  if (answer.empty()) return {false, "opening it ends the process (exit " + std::to_string(WEXITSTATUS(status)) + ")"};
  return {answer[0] == '+', answer.substr(1)};
}

}  // namespace kvlab
