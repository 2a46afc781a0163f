// A cell file: one measured cell, ID.cell, a few KiB. It is sealed (envelope.hpp) over a map of CBOR: `id`, `cell` (a
// map from column to value), `layers` and `rungs` (a map from column to the list of its values; `id`, the same in each
// row, is left out), and `samples` (a list of [metric, seconds], seconds a byte string of float64, little-endian, in
// order of time). NaN and "" are left out of `cell`. Columns are those of schema.hpp; a column that came later is
// missing in an older file, and read as not measured.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "results/envelope.hpp"
#include "results/schema.hpp"

namespace kvlab {

// Each raw timing of a metric, seconds, in order of time.
struct Samples {
  std::string metric;
  std::vector<double> seconds;
};

// All that was measured of one cell. Labels (pipeline, workload) are those of the experiment that ran it.
struct CellRecord {
  Row cell;
  std::vector<Row> layers;
  std::vector<Samples> samples;
  std::vector<Row> rungs;
};

std::string cell_to_bytes(const CellRecord& record);

// Throws DamagedError when they are not a cell's, or not the cell `id`'s; InputError for a version that is not known.
// The sentence names no file.
CellRecord cell_from_bytes(std::string_view bytes, const std::string& id);

// The cell's id is the file's name without its suffix. Throws as cell_from_bytes does, or InputError when the file
// cannot be read; the sentence begins with the path.
CellRecord read_cell(const std::filesystem::path& path);

}  // namespace kvlab
