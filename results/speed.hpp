// The speeds of a result, each against the roofline of its run and against the uncompressed cache: the benchmarks'
// table.
#pragma once

#include <iosfwd>

#include "results/table.hpp"

namespace kvlab {

// `as_csv`: the same columns as CSV.
void show_speeds(const Table& cells, bool as_csv, std::ostream& out);

}  // namespace kvlab
