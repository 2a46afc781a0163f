// A table: columns of one length, each with its unit and what it means. In a file a table is a group with a dataset a
// column, all on one dimension scale, so that xarray (and through it pandas) opens it in one line.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "results/hdf5.hpp"

namespace kvlab {

using Value = std::variant<double, std::int64_t, std::string>;
using Row = std::map<std::string, Value>;

enum class ColumnType { real, integer, text };

struct ColumnSpec {
  std::string name;
  ColumnType type;
  std::string unit;  // a symbol: s, B, B/s, 1; "" for text
  std::string description;
};

struct Column {
  ColumnSpec spec;
  std::vector<Value> values;
};

struct Table {
  std::vector<Column> columns;

  [[nodiscard]] std::size_t rows() const { return columns.empty() ? 0 : columns.front().values.size(); }
  [[nodiscard]] const Column* find(const std::string& name) const;
  [[nodiscard]] Row row(std::size_t index) const;
  [[nodiscard]] std::vector<std::string> names() const;
};

// Throws Error where a row has a value that none of these columns is for: it would be lost.
void check_rows(const std::vector<ColumnSpec>& specs, const std::vector<Row>& rows);

// A column for each spec; what a row lacks is NaN, or "". A missing integer is a mistake of the caller (Error).
Table make_table(const std::vector<ColumnSpec>& specs, const std::vector<Row>& rows);

// Writes the group `name`, with `dimension` as its scale; reads it back.
void write_table(const h5::Object& file, const std::string& name, const std::string& dimension, const Table& table);
Table read_table(const h5::Object& file, const std::string& name);

// A table as bytes, on its way from the child that read it. What names and texts hold of control characters is escaped
// in the table that comes back. Throws InputError.
std::string bytes_of_table(const Table& table);
Table table_of_bytes(std::string_view bytes);

// For people: integers whole, reals in few digits, NaN as "-", texts escaped and of 2,000 bytes at most.
std::string text_for_people(const Value& value);

}  // namespace kvlab
