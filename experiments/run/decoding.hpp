// Decoding as a workload: after the prefill each later token is appended and attended from, one at a time, as a model
// would; judged queries attend at their own positions.
#pragma once

#include <vector>

#include "core/cache/manager.hpp"
#include "experiments/workloads/workload.hpp"

namespace kvlab {

struct Decoding {
  std::vector<double> append_seconds;       // of each token: all sequences, all layers
  std::vector<double> step_seconds;         // the append, and attention of one query per query head after it
  std::vector<std::vector<float>> outputs;  // a layer: of the judged queries, as attend gives them
  std::uint64_t peak_bytes = 0;             // the most that the cache held after a step
};

// The cache holds the workload's prefill, and afterwards all of its tokens, with nothing left to encode.
Decoding decode_tokens(const Workload& workload, CacheManager& cache, std::uint64_t seed);

}  // namespace kvlab
