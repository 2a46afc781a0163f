#include "results/table.hpp"

#include <hdf5_hl.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "core/base/error.hpp"
#include "core/base/hash.hpp"
#include "core/base/text.hpp"

namespace kvlab {
namespace {

using Json = nlohmann::json;

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

// Numbers as the bytes that they are in memory.
template <class T>
Json packed_numbers(const Column& column) {
  std::vector<std::uint8_t> bytes;
  bytes.reserve(column.values.size() * sizeof(T));
  for (const Value& value : column.values) {
    const auto number = std::bit_cast<std::array<std::uint8_t, sizeof(T)>>(std::get<T>(value));
    bytes.insert(bytes.end(), number.begin(), number.end());
  }
  return Json::binary(std::move(bytes));
}

Json packed(const Column& column) {
  switch (column.spec.type) {
    case ColumnType::real:
      return packed_numbers<double>(column);
    case ColumnType::integer:
      return packed_numbers<std::int64_t>(column);
    case ColumnType::text:
      break;
  }
  Json texts = Json::array();
  for (const Value& value : column.values) texts.push_back(std::get<std::string>(value));
  return texts;
}

template <class T>
std::vector<Value> unpacked_numbers(const Json& binary) {
  const auto& bytes = binary.get_binary();
  std::vector<Value> values;
  values.reserve(bytes.size() / sizeof(T));
  std::array<std::uint8_t, sizeof(T)> number{};
  for (std::size_t i = 0; i + sizeof(T) <= bytes.size(); i += sizeof(T)) {
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(i), sizeof(T), number.begin());
    values.emplace_back(std::bit_cast<T>(number));
  }
  return values;
}

std::vector<Value> unpacked(const Json& json, ColumnType type) {
  if (type == ColumnType::real) return unpacked_numbers<double>(json);
  if (type == ColumnType::integer) return unpacked_numbers<std::int64_t>(json);
  std::vector<Value> values;
  values.reserve(json.size());
  for (const Json& text : json) values.emplace_back(printable(text.get<std::string>()));
  return values;
}

// Of names, types and values, in the order of names, as HDF5 lists them.
std::string checksum_of(const Table& table) {
  std::map<std::string, const Column*> columns;
  for (const auto& column : table.columns) columns[column.spec.name] = &column;
  std::string bytes;
  const auto add = [&](const auto& number) { bytes.append(reinterpret_cast<const char*>(&number), sizeof number); };
  for (const auto& [name, column] : columns) {
    bytes += name + '\0' + static_cast<char>(column->spec.type);
    for (const Value& value : column->values) {
      if (const auto* text = std::get_if<std::string>(&value)) bytes += printable(*text) + '\0';  // as it is read
      if (const auto* real = std::get_if<double>(&value)) add(*real);
      if (const auto* integer = std::get_if<std::int64_t>(&value)) add(*integer);
    }
  }
  return hash_of(bytes);
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

void check_rows(const std::vector<ColumnSpec>& specs, const std::vector<Row>& rows) {
  std::set<std::string> names;
  for (const auto& spec : specs) names.insert(spec.name);
  for (const auto& row : rows) {
    for (const auto& [name, value] : row) {
      if (!names.contains(name)) throw Error("a row has a value '" + name + "', and there is no such column");
    }
  }
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
  h5::write_attribute(group, "checksum", checksum_of(table));
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
  if (h5::has_attribute(group, "checksum") && h5::read_string(group, "checksum") != checksum_of(table)) {
    throw InputError(name + " is damaged: its checksum is another");
  }
  return table;
}

std::string bytes_of_table(const Table& table) {
  Json columns = Json::array();
  for (const Column& column : table.columns) {
    columns.push_back({{"name", column.spec.name},
                       {"unit", column.spec.unit},
                       {"description", column.spec.description},
                       {"type", static_cast<int>(column.spec.type)},
                       {"values", packed(column)}});
  }
  std::string bytes;
  Json::to_cbor(columns, bytes);
  return bytes;
}

Table table_of_bytes(std::string_view bytes) {
  try {
    const Json columns = Json::from_cbor(bytes.begin(), bytes.end());
    Table table;
    for (const Json& each : columns) {
      Column column;
      column.spec.name = printable(each.at("name").get<std::string>());
      column.spec.unit = printable(each.at("unit").get<std::string>());
      column.spec.description = printable(each.at("description").get<std::string>());
      column.spec.type = static_cast<ColumnType>(each.at("type").get<int>());
      column.values = unpacked(each.at("values"), column.spec.type);
      table.columns.push_back(std::move(column));
      if (table.columns.back().values.size() != table.rows()) throw InputError("its columns differ in length");
    }
    return table;
  } catch (const Json::exception& error) {
    throw InputError(std::string("what was read of it is damaged: ") + error.what());
  }
}

std::string text_for_people(const Value& value) {
  constexpr std::size_t most = 2000;  // each row of a table is as wide as the widest
  if (const auto* text = std::get_if<std::string>(&value)) return shortened(printable(*text), most);
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return std::to_string(*integer);
  const double real = std::get<double>(value);
  if (std::isnan(real)) return "-";
  std::array<char, 32> buffer{};
  const bool whole = real == std::floor(real) && std::fabs(real) < 1e15;
  std::snprintf(buffer.data(), buffer.size(), whole ? "%.0f" : "%.4g", real);
  return buffer.data();
}

}  // namespace kvlab
