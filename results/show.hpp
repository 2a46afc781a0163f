// A result as a table in the terminal, or as CSV.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "results/table.hpp"

namespace kvlab {

struct ShowOptions {
  std::string sort;                  // a column; "-COL" descends; "" keeps the order of the plan
  std::vector<std::string> columns;  // empty: those that matter most
  bool csv = false;                  // all columns, unless named; a row per cell
  bool rows = false;                 // a row per cell, as where `columns` names id, repeat or seed
};

// For people repeats are one row, their mean and spread (repeats.hpp). Throws InputError for a column that is not
// there.
void show(const Table& cells, const ShowOptions& options, std::ostream& out);

}  // namespace kvlab
