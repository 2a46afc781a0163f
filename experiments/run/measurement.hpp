// One cell measured in this process: the workload through the pipeline's caches, all layers.
#pragma once

#include "core/backend/backend.hpp"
#include "experiments/run/job.hpp"
#include "results/store.hpp"

namespace kvlab {

// Fills in `record.cell` beyond job.row, `layers` and `samples`. Throws what goes wrong.
void measure_cell(const Job& job, Backend& backend, CellRecord& record);

}  // namespace kvlab
