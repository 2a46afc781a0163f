#include "experiments/run/keeper.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/error.hpp"
#include "experiments/run/tree.hpp"

namespace kvlab {
namespace {

// Until there are none: the children of one that dies become the keeper's own.
void end_all_children() {
  while (true) {
    for (const ProcessStat& process : all_processes()) {
      if (process.parent == getpid()) kill(process.pid, SIGKILL);
    }
    pid_t ended = 0;
    while ((ended = waitpid(-1, nullptr, WNOHANG)) > 0) {
    }
    if (ended < 0) return;
    usleep(1000);
  }
}

[[noreturn]] void end_as(int status) {
  if (WIFEXITED(status)) _exit(WEXITSTATUS(status));
  const int signal = WTERMSIG(status);
  sigset_t only{};
  sigemptyset(&only);
  sigaddset(&only, signal);
  ::signal(signal, SIG_DFL);
  sigprocmask(SIG_UNBLOCK, &only, nullptr);
  raise(signal);
  _exit(128 + signal);
}

// Reaps what became a child of this process, until the worker has ended. False on SIGTERM.
bool wait_for(pid_t worker, const sigset_t& signals, int& status) {
  while (true) {
    int ended_status = 0;
    for (pid_t ended = 0; (ended = waitpid(-1, &ended_status, WNOHANG)) > 0;) {
      if (ended != worker) continue;
      status = ended_status;
      return true;
    }
    if (sigwaitinfo(&signals, nullptr) == SIGTERM) return false;
  }
}

}  // namespace

void start_under_keeper(pid_t runner) {
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  // Those that a keeper waits for, and those that are not meant for it.
  sigset_t signals{};
  sigset_t before{};
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGCHLD, SIGINT, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, &before);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (getppid() != runner) _exit(1);  // it died before this line
  const pid_t keeper = getpid();
  const pid_t worker = fork();
  if (worker < 0) throw Error("cannot start a worker process");
  if (worker == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != keeper) _exit(1);
    setpgid(0, 0);  // what a worker sends to its group does not reach the keeper
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return;
  }
  int status = 0;
  const bool ended = wait_for(worker, signals, status);
  end_all_children();
  end_as(ended ? status : SIGKILL);
}

}  // namespace kvlab
