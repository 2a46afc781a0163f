// What compression did to one layer: errors of the kept keys and values, and of the attention outputs.
#pragma once

#include <vector>

#include "core/cache/layer_cache.hpp"
#include "experiments/workloads/workload.hpp"

namespace kvlab {

struct LayerQuality {
  double kept_tokens = 0;  // mean per head
  double key_error = 0;    // |k - k^| / |k| over the kept tokens; NaN where none was kept
  double value_error = 0;
  double output_error = 0;            // |o - o^| / |o| over all output vectors; NaN where no query is judged
  double output_cosine = 0;           // mean of o.o^ / (|o| |o^|)
  std::vector<double> vector_errors;  // |o - o^| / |o| of each output vector
};

// Sums run over all sequences, heads, tokens and channels, in f64; 0/0 = 0. `reference`: reference_outputs(layer);
// `outputs`: what the cache gave for the same queries. Throws MethodError (internal) naming layer and head where a
// decode or an output is not finite.
LayerQuality judge(const WorkloadLayer& layer, const LayerCache& cache, const std::vector<float>& reference,
                   const std::vector<float>& outputs);

// The judged queries' outputs over what the cache holds.
std::vector<float> cache_outputs(const WorkloadLayer& layer, LayerCache& cache);

// Of the sorted values, linearly interpolated; NaN of none.
double quantile(const std::vector<double>& sorted, double q);

}  // namespace kvlab
