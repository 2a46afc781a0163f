#include "results/speed.hpp"

#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <ostream>

#include "results/show.hpp"

namespace kvlab {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// Numbers of one cell; NaN where a column is missing.
class Cell {
 public:
  Cell(const Table& table, std::size_t row) : table_(table), row_(row) {}

  [[nodiscard]] double operator[](const std::string& name) const {
    const Column* column = table_.find(name);
    if (column == nullptr) return nan;
    const Value& value = column->values[row_];
    if (const auto* whole = std::get_if<std::int64_t>(&value)) return static_cast<double>(*whole);
    const auto* real = std::get_if<double>(&value);
    return real == nullptr ? nan : *real;
  }
  [[nodiscard]] std::string text(const std::string& name) const {
    return std::get<std::string>(table_.find(name)->values[row_]);
  }
  // The workload it is of, with what was swept in it.
  [[nodiscard]] std::string workload() const {
    std::string key = text("workload");
    for (const char* name : {"backend", "batch", "tokens", "head_dim", "layers", "decoded_tokens"}) {
      key += " " + text_for_people(table_.find(name)->values[row_]);
    }
    return key;
  }

 private:
  const Table& table_;
  std::size_t row_;
};

std::string format(const char* pattern, double value) {
  if (std::isnan(value)) return "-";
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), pattern, value);
  return text.data();
}

// A median in milliseconds, with half of its interquartile range in percent of it.
std::string timing(const Cell& cell, const std::string& name) {
  const double median = cell[name];
  if (std::isnan(median)) return "-";
  const double spread = 50 * (cell[name + "_q75"] - cell[name + "_q25"]) / median;
  return format("%.4g", 1e3 * median) + format(" ±%.0f%%", spread);
}

}  // namespace

void show_speeds(const Table& cells, bool as_csv, std::ostream& out) {
  std::map<std::string, double> raw_attend;  // of the pipeline that stores all of it uncompressed
  for (std::size_t row = 0; row < cells.rows(); ++row) {
    const Cell cell(cells, row);
    if (cell["bytes"] == cell["uncompressed_bytes"] && cell["bytes"] == cell["raw_bytes"]) {
      raw_attend[cell.workload()] = cell["attend_seconds"];
    }
  }
  const std::vector<std::string> names{"pipeline",  "batch",       "tokens",    "head_dim",  "MiB",
                                       "encode_ms", "encode_roof", "decode_ms", "attend_ms", "attend_roof",
                                       "x_raw",     "x_plain",     "append_us", "step_ms",   "step_p99_ms"};
  std::vector<ColumnSpec> specs;
  for (const auto& name : names) specs.push_back({name, ColumnType::text, "", name});
  std::vector<Row> rows;
  for (std::size_t row = 0; row < cells.rows(); ++row) {
    const Cell cell(cells, row);
    const double raw = cell["raw_bytes"] * cell["tokens"] / (cell["tokens"] + cell["decoded_tokens"]);
    const double encoded = cell["bytes"] * cell["tokens"] / (cell["tokens"] + cell["decoded_tokens"]);
    const auto found = raw_attend.find(cell.workload());
    const double own_raw = found == raw_attend.end() ? nan : found->second;
    const auto whole = [&](const char* name) { return format("%.0f", cell[name]); };
    rows.push_back(
        {{"pipeline", cell.text("pipeline")},
         {"batch", whole("batch")},
         {"tokens", whole("tokens")},
         {"head_dim", whole("head_dim")},
         {"MiB", format("%.1f", cell["bytes"] / (1 << 20))},
         {"encode_ms", timing(cell, "compress_seconds")},
         {"encode_roof", format("%.2f", (raw + encoded) / cell["compress_seconds"] / cell["peak_copy_bandwidth"])},
         {"decode_ms", timing(cell, "decompress_seconds")},
         {"attend_ms", timing(cell, "attend_seconds")},
         {"attend_roof", format("%.2f", cell["attend_bandwidth"] / cell["peak_read_bandwidth"])},
         {"x_raw", format("%.2f", own_raw / cell["attend_seconds"])},
         {"x_plain", format("%.1f", cell["plain_attend_seconds"] / cell["attend_seconds"])},
         {"append_us", format("%.1f", 1e6 * cell["append_seconds_mean"])},
         {"step_ms", format("%.4g", 1e3 * cell["step_seconds"])},
         {"step_p99_ms", format("%.4g", 1e3 * cell["step_seconds_p99"])}});
  }
  if (!as_csv && cells.rows() > 0) {
    const Cell cell(cells, 0);
    out << "this machine, in this run: " << format("%.1f", cell["peak_read_bandwidth"] / 1e9) << " GB/s read, "
        << format("%.1f", cell["peak_copy_bandwidth"] / 1e9)
        << " GB/s copied (read + written). Medians, ± half the interquartile range;\nencode_roof: bytes read and "
           "written over the copy, attend_roof: bytes of the cache over the read; above 1 they were in a cache.\n"
           "append_us: the mean of a token in all layers, those included that encode a block.\n";
  }
  show(make_table(specs, rows), {"", names, as_csv}, out);
}

}  // namespace kvlab
