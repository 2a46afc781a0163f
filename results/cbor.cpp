#include "results/cbor.hpp"

#include "results/envelope.hpp"

namespace kvlab {

using Json = nlohmann::json;

Json to_json(const Value& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

Value value_of(const Json& json, const ColumnSpec& spec) {
  switch (spec.type) {
    case ColumnType::real:
      if (json.is_number_float()) return json.get<double>();
      break;
    case ColumnType::integer:
      if (json.is_number_integer()) return json.get<std::int64_t>();
      break;
    case ColumnType::text:
      if (json.is_string()) return json.get<std::string>();
      break;
  }
  throw DamagedError("it is damaged: " + spec.name + " is of another type");
}

Json columns_of(const std::vector<Row>& rows, const std::vector<ColumnSpec>& specs) {
  Json columns = Json::object();
  if (rows.empty()) return columns;
  const Table values = make_table(specs, rows);
  for (const Column& column : values.columns) {
    Json& list = columns[column.spec.name] = Json::array();
    for (const Value& value : column.values) list.push_back(to_json(value));
  }
  return columns;
}

std::vector<Row> rows_of(const Json& columns, const std::vector<ColumnSpec>& specs) {
  std::vector<Row> rows;
  if (columns.empty()) return rows;
  rows.resize(columns.begin().value().size());
  for (const ColumnSpec& spec : specs) {
    if (!columns.contains(spec.name)) continue;
    const Json& list = columns.at(spec.name);
    if (list.size() != rows.size()) throw DamagedError("it is damaged: " + spec.name + " is not as long as the others");
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i][spec.name] = value_of(list.at(i), spec);
  }
  return rows;
}

}  // namespace kvlab
