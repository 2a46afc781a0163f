// Rows of a table that measured the same thing again: cells that differ in their repeat alone.
#pragma once

#include <cstddef>
#include <vector>

#include "results/table.hpp"

namespace kvlab {

using Repeats = std::vector<std::size_t>;  // rows of one cell's repeats, in their order, at least one

// Rows with the same pipeline, workload, backend and parameters together, in the order of their first.
std::vector<Repeats> together(const Table& cells);
// Each row on its own.
std::vector<Repeats> apart(const Table& cells);

// What a column says of repeats. Reals: the mean over those that are measured, which order them too. `status`: "2 of 3
// ok" where not all are the same. Of other columns the first that says anything.
Value value_of(const Column& column, const Repeats& repeats);
// The same for people: of several measured reals the mean and their standard deviation, "0.0137 ±0.0002".
std::string text_for_people(const Column& column, const Repeats& repeats);

}  // namespace kvlab
