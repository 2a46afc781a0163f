#include "results/cell.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "results/cbor.hpp"

namespace kvlab {
namespace {

using Json = nlohmann::json;
using Columns = std::vector<ColumnSpec>;

constexpr Seal cell_seal{"kvcell", 1};

bool is_missing(const Value& value) {
  const auto* real = std::get_if<double>(&value);
  const auto* text = std::get_if<std::string>(&value);
  return (real != nullptr && std::isnan(*real)) || (text != nullptr && text->empty());
}

// `id`, the same in each row, is left out.
Columns without_id(Columns columns) {
  std::erase_if(columns, [](const ColumnSpec& spec) { return spec.name == "id"; });
  return columns;
}

std::vector<Row> rows_with_id(const Json& table, const Columns& columns, const std::string& id) {
  std::vector<Row> rows = rows_of(table, columns);
  for (Row& row : rows) row["id"] = id;
  return rows;
}

Json samples_to_json(const std::vector<Samples>& samples) {
  Json list = Json::array();
  for (const Samples& each : samples) {
    std::vector<std::uint8_t> bytes(each.seconds.size() * sizeof(double));
    if (!bytes.empty()) std::memcpy(bytes.data(), each.seconds.data(), bytes.size());
    list.push_back({each.metric, Json::binary(std::move(bytes))});
  }
  return list;
}

std::vector<Samples> samples_of(const Json& list) {
  std::vector<Samples> samples;
  for (const Json& each : list) {
    const auto& bytes = each.at(1).get_binary();
    if (bytes.size() % sizeof(double) != 0) throw DamagedError("it is damaged: samples is cut within a number");
    samples.push_back({each.at(0).get<std::string>(), std::vector<double>(bytes.size() / sizeof(double))});
    if (!bytes.empty()) std::memcpy(samples.back().seconds.data(), bytes.data(), bytes.size());
  }
  return samples;
}

Row row_of(const Json& cell) {
  Row row;
  for (const ColumnSpec& spec : cell_columns()) {
    if (const auto found = cell.find(spec.name); found != cell.end()) {
      row[spec.name] = value_of(*found, spec);
    } else if (spec.type == ColumnType::integer) {
      throw DamagedError("it is damaged: " + spec.name + " is missing");
    } else {
      row[spec.name] =
          spec.type == ColumnType::text ? Value(std::string()) : Value(std::numeric_limits<double>::quiet_NaN());
    }
  }
  return row;
}

}  // namespace

std::string cell_to_bytes(const CellRecord& record) {
  Json cell = Json::object();
  for (const auto& [name, value] : record.cell) {
    if (!is_missing(value)) cell[name] = to_json(value);
  }
  const Json whole{{"id", std::get<std::string>(record.cell.at("id"))},
                   {"cell", cell},
                   {"layers", columns_of(record.layers, without_id(layer_columns()))},
                   {"samples", samples_to_json(record.samples)},
                   {"rungs", columns_of(record.rungs, without_id(rung_columns()))}};
  std::string payload;
  Json::to_cbor(whole, payload);
  return seal(cell_seal, payload);
}

CellRecord cell_from_bytes(std::string_view bytes, const std::string& id) {
  const std::string_view payload = unseal(cell_seal, bytes);
  try {
    const Json whole = Json::from_cbor(payload.begin(), payload.end());
    const auto own = whole.at("id").get<std::string>();
    if (own != id) throw DamagedError("it is the cell " + own + " under another name");
    return {row_of(whole.at("cell")), rows_with_id(whole.at("layers"), layer_columns(), id),
            samples_of(whole.at("samples")), rows_with_id(whole.at("rungs"), rung_columns(), id)};
  } catch (const Json::exception& error) {
    throw DamagedError(std::string("it is damaged: ") + error.what());
  }
}

CellRecord read_cell(const std::filesystem::path& path) {
  const std::string place = path.string() + ": ";
  try {
    return cell_from_bytes(bytes_of_file(path), path.stem().string());
  } catch (const DamagedError& error) {
    throw DamagedError(place + error.what());
  } catch (const InputError& error) {
    throw InputError(place + error.what());
  }
}

}  // namespace kvlab
