// Work on strangers' files that can kill is done in a child process: dlopen of a truncated library is a SIGBUS, and
// libhdf5 1.10.8 crashes, loops or takes all memory on some damaged files.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace kvlab {

struct ChildResult {
  bool ok = false;
  std::string text;  // what `work` returned; else why there is nothing: the exception's sentence, or how it ended
};

struct ChildLimits {
  std::string doing = "opening it";  // begins the sentence about a child that did not come back
  double seconds = 60;               // by the clock
  double cpu_seconds = 0;            // of a processor, which a loaded machine does not change; 0: no limit
  std::uint64_t memory = 0;          // bytes of address space beyond what this process has; 0: no limit
  double idle_seconds = 0;           // by the clock, in which it used no processor at all; 0: no limit
};

// Runs `work` in a forked child and waits for it. The child has no standard input and what it prints is dropped. It
// ends with the calling thread, and whatever it started ends with it. Any thread may call this while no other holds a
// lock that the work needs. Throws Error when no process can be started.
ChildResult in_child(const std::function<std::string()>& work, const ChildLimits& limits = {});

// Within `work`, once it knows what it needs: from here on the child may have `memory` bytes more than it has now. To
// be called only where a limit was given.
void allow_memory(std::uint64_t memory);

// "SIGSEGV" and the like.
std::string signal_name(int signal);

}  // namespace kvlab
