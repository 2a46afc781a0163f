// Values and rows as the JSON that goes into sealed files as CBOR.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "results/table.hpp"

namespace kvlab {

nlohmann::json to_json(const Value& value);

// Throws DamagedError where it is not of the column's type.
Value value_of(const nlohmann::json& json, const ColumnSpec& spec);

// A map from column to the list of its values; empty where there are no rows.
nlohmann::json columns_of(const std::vector<Row>& rows, const std::vector<ColumnSpec>& specs);

// Back; a column that is not there is left out of the rows. Throws DamagedError.
std::vector<Row> rows_of(const nlohmann::json& columns, const std::vector<ColumnSpec>& specs);

}  // namespace kvlab
