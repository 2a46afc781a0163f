// Why cells of a result have no measurement, in few lines.
#pragma once

#include <string>

#include "results/table.hpp"

namespace kvlab {

// How many of its cells failed and why, reasons that differ in their numbers alone together, the most frequent first;
// "" where none did. Lines end in '\n'.
std::string failures_of(const Table& cells);

}  // namespace kvlab
