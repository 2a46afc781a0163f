// What this machine is, and how fast its memory.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/base/thread_pool.hpp"
#include "results/table.hpp"

namespace kvlab {

// For the result file's root: cpu, cpu_features, cores, memory_bytes, gpu, kernel, compiler, ...
std::vector<std::pair<std::string, Value>> machine_attributes();

struct PeakBandwidth {
  double read;  // B/s: reading once, all threads
  double copy;  // B/s: bytes read plus bytes written
};

// The best of several passes over memory far larger than any cache (512 MiB; less where little is free).
PeakBandwidth measure_peak_bandwidth(ThreadPool& pool);

std::uint64_t last_level_cache_bytes();  // 0 when unknown
std::uint64_t available_memory_bytes();  // what the kernel says could be used now

// Resident memory of this process, and its peak since the last reset.
std::uint64_t resident_bytes();
std::uint64_t peak_resident_bytes();
void reset_peak_resident();

}  // namespace kvlab
