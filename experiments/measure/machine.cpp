#include "experiments/measure/machine.hpp"

#include <kvlab/isa.hpp>

#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "core/base/thread_pool.hpp"

namespace kvlab {
namespace {

// The value of "NAME : value" in a file of /proc.
std::string proc_field(const char* file, const std::string& name) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name)) continue;
    const auto colon = line.find(':');
    const auto value = line.find_first_not_of(" \t", colon + 1);
    if (colon != std::string::npos && value != std::string::npos) return line.substr(value);
  }
  return "";
}

std::uint64_t kibibytes(const char* file, const std::string& name) {
  std::istringstream text(proc_field(file, name));
  std::uint64_t value = 0;
  text >> value;
  return value * 1024;
}

// The features that kernels of this field are written for.
std::string cpu_features() {
  const std::string all = " " + proc_field("/proc/cpuinfo", "flags") + " ";
  std::string found;
  for (const char* feature : {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
                              "avx512_fp16", "amx_int8", "amx_bf16"}) {
    if (all.find(" " + std::string(feature) + " ") != std::string::npos)
      found += (found.empty() ? "" : " ") + std::string(feature);
  }
  return found;
}

}  // namespace

std::vector<std::pair<std::string, Value>> machine_attributes() {
  utsname system{};
  uname(&system);
  return {
      {"cpu", proc_field("/proc/cpuinfo", "model name")},
      {"cpu_features", cpu_features()},
      {"isa", std::string(name_of(chosen_isa()))},  // that kernels use
      {"cores", static_cast<std::int64_t>(allowed_cores())},
      {"memory_bytes", static_cast<std::int64_t>(kibibytes("/proc/meminfo", "MemTotal"))},
      {"last_level_cache_bytes", static_cast<std::int64_t>(last_level_cache_bytes())},
      {"gpu", std::string("none used")},
      {"kernel", std::string(system.sysname) + " " + system.release},
      {"compiler", std::string("g++ ") + __VERSION__},
  };
}

// From sysfs: sysconf counts, on some machines, the caches of all sockets as one.
std::uint64_t last_level_cache_bytes() {
  std::uint64_t bytes = 0;
  for (int index = 0; index < 8; ++index) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
    std::uint64_t kib = 0;
    if (file >> kib) bytes = std::max(bytes, kib * 1024);  // "32768K"
  }
  return bytes;
}

std::uint64_t available_memory_bytes() { return kibibytes("/proc/meminfo", "MemAvailable"); }
std::uint64_t resident_bytes() { return kibibytes("/proc/self/status", "VmRSS"); }
std::uint64_t peak_resident_bytes() { return kibibytes("/proc/self/status", "VmHWM"); }
void reset_peak_resident() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace kvlab
