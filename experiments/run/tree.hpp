// The processes below another, and what they hold in memory.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <vector>

namespace kvlab {

struct ProcessStat {
  pid_t pid;
  pid_t parent;
  std::uint64_t started;   // in ticks since boot: with the pid it names a process for good
  std::uint64_t resident;  // bytes
};

// All that this process may see; those that end meanwhile are left out.
std::vector<ProcessStat> all_processes();

// The descendants of `root`, itself left out. Most are looked for now and then only, so that looking takes no more than
// a hundredth of a core.
class ProcessTree {
 public:
  explicit ProcessTree(pid_t root) : root_(root) {}

  // Bytes of memory, exact where they pass `limit`: resident pages, those that several share once, and what lies in
  // files of memory (memfd_create, deleted files of a tmpfs) that are open, mapped or not. Below the limit it may be
  // too much.
  std::uint64_t memory(std::uint64_t limit);

 private:
  using Clock = std::chrono::steady_clock;

  void look();
  [[nodiscard]] std::uint64_t exact() const;

  pid_t root_;
  std::vector<ProcessStat> processes_;
  std::uint64_t file_bytes_ = 0;  // in files of memory, at the last look
  // The last exact sum, and the cheap one of that moment: what passes it by no more cannot have passed the limit.
  std::uint64_t exact_then_ = 0;
  std::uint64_t most_then_ = 0;
  Clock::time_point next_look_;
  Clock::time_point next_exact_;
};

}  // namespace kvlab
