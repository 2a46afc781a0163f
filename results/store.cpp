#include "results/store.hpp"

#include <algorithm>

#include "core/base/error.hpp"
#include "results/atomic.hpp"
#include "results/structure.hpp"

namespace kvlab {
namespace {

constexpr std::int64_t format_version = 1;

void check_format(const h5::Object& file, const std::string& wanted) {
  const std::string format = h5::read_string(file, "format");
  if (format != wanted) throw InputError("its format is '" + format + "', not '" + wanted + "'");
  const std::int64_t version = h5::read_integer(file, "version");
  if (version != format_version) {
    throw InputError("its format's version is " + std::to_string(version) + "; this kvlab reads version " +
                     std::to_string(format_version));
  }
}

// What is known of a column stands in the schema: whoever reads the table may rely on texts being texts.
void check_types(const Table& table) {
  for (const ColumnSpec& spec : cell_columns()) {
    const Column* column = table.find(spec.name);
    if (column != nullptr && (column->spec.type == ColumnType::text) != (spec.type == ColumnType::text)) {
      throw InputError("column " + spec.name + " is of another type");
    }
  }
}

// A column at a time: there are many more samples than rows of anything else.
Table samples_of(const std::vector<CellRecord>& records) {
  Table table;
  for (const ColumnSpec& spec : sample_columns()) table.columns.push_back({spec, {}});
  for (const auto& record : records) {
    for (const auto& [metric, seconds] : record.samples) {
      for (std::size_t i = 0; i < seconds.size(); ++i) {
        table.columns[0].values.push_back(record.cell.at("id"));
        table.columns[1].values.emplace_back(metric);
        table.columns[2].values.emplace_back(static_cast<std::int64_t>(i));
        table.columns[3].values.emplace_back(seconds[i]);
      }
    }
  }
  return table;
}

// The rows of each record that `part` names, one after another.
std::vector<Row> rows_of(const std::vector<CellRecord>& records, std::vector<Row> CellRecord::* part) {
  std::vector<Row> rows;
  for (const auto& record : records) rows.insert(rows.end(), (record.*part).begin(), (record.*part).end());
  return rows;
}

void write_tables(const h5::Object& file, const std::vector<ColumnSpec>& columns,
                  const std::vector<CellRecord>& records) {
  std::vector<Row> rows;
  for (const auto& record : records) rows.push_back(record.cell);
  const auto write = [&](const char* name, const char* dimension, const std::vector<ColumnSpec>& specs,
                         const std::vector<Row>& all) {
    check_rows(specs, all);
    write_table(file, name, dimension, make_table(specs, all));
  };
  write("cells", "cell", columns, rows);
  write("layers", "row", layer_columns(), rows_of(records, &CellRecord::layers));
  write_table(file, "samples", "row", samples_of(records));
  write("rungs", "row", rung_columns(), rows_of(records, &CellRecord::rungs));
}

}  // namespace

std::vector<ColumnSpec> result_columns(const std::vector<ColumnSpec>& swept) {
  std::vector<ColumnSpec> columns = cell_columns();
  // Swept parameters stand behind `parameters`, where a reader looks for what tells the rows apart.
  const auto place = std::find_if(columns.begin(), columns.end(), [](const auto& c) { return c.name == "parameters"; });
  columns.insert(place + 1, swept.begin(), swept.end());
  return columns;
}

void write_run(const std::filesystem::path& path, const RunInfo& info, const std::vector<CellRecord>& cells) {
  const h5::Object file = h5::create_file();
  h5::write_attribute(file, "format", std::string("kvlab-results"));
  h5::write_attribute(file, "version", format_version);
  for (const auto& [name, value] : info.attributes) {
    std::visit([&, &attribute = name](const auto& v) { h5::write_attribute(file, attribute, v); }, value);
  }
  const h5::Object experiment = h5::create_group(file, "experiment");
  h5::write_text(experiment, "source", info.source);
  h5::write_text(experiment, "expanded", info.expanded);
  write_tables(file, result_columns(info.swept), cells);
  const std::vector<char> image = h5::image_of(file);
  write_atomically(path, {image.data(), image.size()});
}

RunOrigin read_origin(const std::filesystem::path& path) {
  const h5::StrangerReader reader{
      [](const h5::Declared& declared) { return 8 * declared.file; },
      [](const h5::Object& file) {
        check_format(file, "kvlab-results");
        const std::string run = h5::has_attribute(file, "run") ? h5::read_string(file, "run") : "";
        return run + '\0' + h5::read_text(h5::open_dataset(h5::open_group(file, "experiment"), "source"));
      }};
  const std::string found = h5::read_stranger(path, reader);
  const std::size_t end = found.find('\0');
  return {found.substr(0, end), found.substr(end + 1)};
}

Table read_run(const std::filesystem::path& path) {
  const h5::StrangerReader reader{[](const h5::Declared& declared) {
                                    return 16 * declared.all + 8 * declared.file;
                                  },  // a value takes 40 bytes here
                                  [](const h5::Object& file) {
                                    check_format(file, "kvlab-results");
                                    const Table table = read_table(file, "cells");
                                    check_types(table);
                                    return bytes_of_table(table);
                                  }};
  const std::string bytes = h5::read_stranger(path, reader);
  try {
    return table_of_bytes(bytes);
  } catch (const InputError& error) {
    throw InputError(path.string() + ": " + error.what());
  }
}

}  // namespace kvlab
