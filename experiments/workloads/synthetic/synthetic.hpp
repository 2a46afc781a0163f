// Workloads that a generator draws.
#pragma once

#include <memory>

#include "experiments/workloads/workload.hpp"

namespace kvlab {

// `tree` has the key `synthetic`.
std::unique_ptr<WorkloadSource> resolve_synthetic(const Node& tree, const std::string& what);

// The parameters that every generator has besides its own, for describe: batch, layers, ...
const std::vector<Parameter>& common_parameters();

}  // namespace kvlab
