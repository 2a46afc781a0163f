// Strangers' files are first opened in a child process, for opening them can kill: dlopen of a truncated library is a
// SIGBUS, and libhdf5 1.10.8 crashes on some damaged files.
#pragma once

#include <functional>
#include <string>

namespace kvlab {

struct ChildResult {
  bool ok = false;
  std::string text;  // what `work` returned; else why there is nothing: the exception's sentence, or the signal
};

// Runs `work` in a forked child. What it prints to stderr is dropped. Not to be called while other threads of this
// process hold locks that the work needs: so before a pool is started.
ChildResult in_child(const std::function<std::string()>& work, unsigned seconds = 60);

// "SIGSEGV" and the like.
std::string signal_name(int signal);

}  // namespace kvlab
