#include "results/table.hpp"

#include <hdf5_hl.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

#include "core/base/error.hpp"
#include "core/base/text.hpp"

namespace kvlab {
namespace {

Value missing(const ColumnSpec& spec) {
  switch (spec.type) {
    case ColumnType::real:
      return std::numeric_limits<double>::quiet_NaN();
    case ColumnType::text:
      return std::string();
    case ColumnType::integer:
      break;
  }
  throw Error("column " + spec.name + " has a row without a value");
}

template <class T>
std::vector<T> values_of(const Column& column) {
  std::vector<T> values;
  for (const auto& value : column.values) values.push_back(std::get<T>(value));
  return values;
}

h5::Object write_values(const h5::Object& group, const Column& column) {
  switch (column.spec.type) {
    case ColumnType::real:
      return h5::write_column(group, column.spec.name, values_of<double>(column));
    case ColumnType::integer:
      return h5::write_column(group, column.spec.name, values_of<std::int64_t>(column));
    case ColumnType::text:
      break;
  }
  return h5::write_column(group, column.spec.name, values_of<std::string>(column));
}

template <class T>
std::vector<Value> as_values(std::vector<T> values) {
  return {std::make_move_iterator(values.begin()), std::make_move_iterator(values.end())};
}

Column read_column(const h5::Object& group, const std::string& name) {
  const h5::Object dataset = h5::open_dataset(group, name);
  Column column;
  column.spec.name = name;
  switch (h5::kind_of(dataset)) {
    case h5::Kind::real:
      column.spec.type = ColumnType::real;
      column.values = as_values(h5::read_reals(dataset));
      break;
    case h5::Kind::integer:
      column.spec.type = ColumnType::integer;
      column.values = as_values(h5::read_integers(dataset));
      break;
    case h5::Kind::text:
      column.spec.type = ColumnType::text;
      column.values = as_values(h5::read_strings(dataset));
      break;
    case h5::Kind::other:
      throw InputError("column " + name + " is neither numbers nor text");
  }
  if (h5::has_attribute(dataset, "units")) column.spec.unit = h5::read_string(dataset, "units");
  if (h5::has_attribute(dataset, "description")) column.spec.description = h5::read_string(dataset, "description");
  return column;
}

}  // namespace

const Column* Table::find(const std::string& name) const {
  for (const auto& column : columns) {
    if (column.spec.name == name) return &column;
  }
  return nullptr;
}

Row Table::row(std::size_t index) const {
  Row row;
  for (const auto& column : columns) row[column.spec.name] = column.values.at(index);
  return row;
}

std::vector<std::string> Table::names() const {
  std::vector<std::string> names;
  for (const auto& column : columns) names.push_back(column.spec.name);
  return names;
}

Table make_table(const std::vector<ColumnSpec>& specs, const std::vector<Row>& rows) {
  Table table;
  for (const auto& spec : specs) {
    Column column{spec, {}};
    for (const auto& row : rows) {
      const auto found = row.find(spec.name);
      column.values.push_back(found == row.end() ? missing(spec) : found->second);
    }
    table.columns.push_back(std::move(column));
  }
  return table;
}

void write_table(const h5::Object& file, const std::string& name, const std::string& dimension, const Table& table) {
  const h5::Object group = h5::create_group(file, name);
  std::vector<std::int64_t> index(table.rows());
  std::iota(index.begin(), index.end(), 0);
  const h5::Object scale = h5::write_column(group, dimension, index);
  H5DSset_scale(scale.id(), dimension.c_str());
  for (const auto& column : table.columns) {
    const h5::Object dataset = write_values(group, column);
    H5DSattach_scale(dataset.id(), scale.id(), 0);
    if (!column.spec.unit.empty()) h5::write_attribute(dataset, "units", column.spec.unit);
    h5::write_attribute(dataset, "description", column.spec.description);
  }
}

Table read_table(const h5::Object& file, const std::string& name) {
  const h5::Object group = h5::open_group(file, name);
  Table table;
  for (const auto& child : h5::children(group)) {
    const h5::Object dataset = h5::open_dataset(group, child);
    if (H5DSis_scale(dataset.id()) > 0) continue;
    table.columns.push_back(read_column(group, child));
    if (table.columns.back().values.size() != table.rows()) {
      throw InputError("column " + child + " of " + name + " is not as long as the others");
    }
  }
  return table;
}

std::string text_for_people(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return printable(*text);
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return std::to_string(*integer);
  const double real = std::get<double>(value);
  if (std::isnan(real)) return "-";
  std::array<char, 32> buffer{};
  const bool whole = real == std::floor(real) && std::fabs(real) < 1e15;
  std::snprintf(buffer.data(), buffer.size(), whole ? "%.0f" : "%.4g", real);
  return buffer.data();
}

}  // namespace kvlab
