// What this machine is.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "results/table.hpp"

namespace kvlab {

// For the result file's root: cpu, cpu_features, cores, memory_bytes, gpu, kernel, compiler, ...
std::vector<std::pair<std::string, Value>> machine_attributes();

std::uint64_t last_level_cache_bytes();  // 0 when unknown
std::uint64_t available_memory_bytes();  // what the kernel says could be used now

// Resident memory of this process, and its peak since the last reset.
std::uint64_t resident_bytes();
std::uint64_t peak_resident_bytes();
void reset_peak_resident();

}  // namespace kvlab
