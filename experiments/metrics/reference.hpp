// Attention written out over the workload itself: what the compressed cache is judged against.
#pragma once

#include <vector>

#include "core/backend/backend.hpp"
#include "experiments/workloads/workload.hpp"

namespace kvlab {

// o = softmax(scale q k) v over tokens at positions <= p, in a layer with window W over those > p - W.
// f32 [batch, query_head, query, channel] of the judged queries; sums of the softmax in f64.
std::vector<float> reference_outputs(const WorkloadLayer& layer, Backend& backend);

}  // namespace kvlab
