#include "experiments/run/tree.hpp"

#include <dirent.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

namespace kvlab {
namespace {

using FileId = std::pair<dev_t, ino_t>;

// The names in a folder of /proc; none where it is gone.
void each_entry(const std::string& folder, const std::function<void(const char*)>& visit) {
  DIR* const entries = opendir(folder.c_str());
  if (entries == nullptr) return;
  while (const dirent* entry = readdir(entries)) {
    if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9') visit(entry->d_name);
  }
  closedir(entries);
}

// A zombie has no memory, and is left out.
std::optional<ProcessStat> stat_of(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const std::size_t name_end = line.rfind(')');  // a name may hold anything
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  ProcessStat process{static_cast<pid_t>(std::atoi(pid.c_str())), 0, 0, 0};
  char state = 0;
  std::string skipped;
  fields >> state >> process.parent;
  for (int field = 5; field < 22; ++field) fields >> skipped;
  fields >> process.started >> skipped >> process.resident;
  if (!fields || state == 'Z') return std::nullopt;
  process.resident *= static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  return process;
}

// Bytes in each file of memory that the process has open.
void add_memory_files(pid_t pid, std::map<FileId, std::uint64_t>& files) {
  const std::string folder = "/proc/" + std::to_string(pid) + "/fd/";
  each_entry(folder, [&](const char* name) {
    struct stat file{};
    struct statfs system{};
    const std::string path = folder + name;
    if (stat(path.c_str(), &file) != 0 || !S_ISREG(file.st_mode) || file.st_nlink > 0) return;
    if (statfs(path.c_str(), &system) != 0) return;
    if (system.f_type != TMPFS_MAGIC && system.f_type != HUGETLBFS_MAGIC) return;
    files[{file.st_dev, file.st_ino}] = static_cast<std::uint64_t>(file.st_blocks) * 512;
  });
}

// The process's share of the pages that it maps, but for those of `files`.
std::uint64_t share_of(pid_t pid, const std::map<FileId, std::uint64_t>& files) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/smaps");
  std::uint64_t total = 0;
  bool counts = true;
  for (std::string line; std::getline(maps, line);) {
    unsigned major = 0;
    unsigned minor = 0;
    unsigned long inode = 0;
    unsigned long kilobytes = 0;
    if (std::sscanf(line.c_str(), "%*x-%*x %*s %*x %x:%x %lu", &major, &minor, &inode) == 3) {
      counts = !files.contains({makedev(major, minor), inode});
    } else if (counts && std::sscanf(line.c_str(), "Pss: %lu kB", &kilobytes) == 1) {
      total += std::uint64_t{kilobytes} * 1024;
    }
  }
  return total;
}

std::map<FileId, std::uint64_t> memory_files(const std::vector<ProcessStat>& processes) {
  std::map<FileId, std::uint64_t> files;
  for (const ProcessStat& process : processes) add_memory_files(process.pid, files);
  return files;
}

std::uint64_t sum(const std::map<FileId, std::uint64_t>& files) {
  std::uint64_t bytes = 0;
  for (const auto& [file, size] : files) bytes += size;
  return bytes;
}

// When to do again what took from `begin` to now, so that it takes one part in `parts` of the time at most.
std::chrono::steady_clock::time_point later(std::chrono::steady_clock::time_point begin, int parts) {
  const auto end = std::chrono::steady_clock::now();
  return end + std::max<std::chrono::steady_clock::duration>(parts * (end - begin), std::chrono::milliseconds(20));
}

}  // namespace

std::vector<ProcessStat> all_processes() {
  std::vector<ProcessStat> processes;
  each_entry("/proc", [&](const char* pid) {
    if (const auto process = stat_of(pid)) processes.push_back(*process);
  });
  return processes;
}

void ProcessTree::look() {
  const auto begin = Clock::now();
  const std::vector<ProcessStat> all = all_processes();
  processes_.clear();
  std::vector<pid_t> parents{root_};
  for (std::size_t i = 0; i < parents.size(); ++i) {
    for (const ProcessStat& process : all) {
      if (process.parent != parents[i]) continue;
      parents.push_back(process.pid);
      processes_.push_back(process);
    }
  }
  file_bytes_ = sum(memory_files(processes_));
  next_look_ = later(begin, 100);
}

std::uint64_t ProcessTree::memory(std::uint64_t limit) {
  if (processes_.empty() || Clock::now() >= next_look_) look();
  std::uint64_t most = file_bytes_;
  for (const ProcessStat& known : processes_) {
    const auto now = stat_of(std::to_string(known.pid));
    if (now && now->started == known.started) most += now->resident;
  }
  if (most <= limit || (processes_.size() == 1 && file_bytes_ == 0)) return most;
  const auto begin = Clock::now();
  if (begin >= next_exact_ && (most < most_then_ || exact_then_ + (most - most_then_) > limit)) {
    look();
    exact_then_ = exact();
    most_then_ = most;
    next_exact_ = later(begin, 10);
  }
  return exact_then_;
}

std::uint64_t ProcessTree::exact() const {
  const auto files = memory_files(processes_);
  std::uint64_t bytes = sum(files);
  for (const ProcessStat& process : processes_) bytes += share_of(process.pid, files);
  return bytes;
}

}  // namespace kvlab
