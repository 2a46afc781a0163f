// Workloads read from a trace.
#pragma once

#include <memory>

#include "experiments/workloads/workload.hpp"

namespace kvlab {

// `tree` has the key `trace`.
std::unique_ptr<WorkloadSource> resolve_trace(const Node& tree, const std::string& what, const std::string& folder,
                                              bool trusted);

}  // namespace kvlab
