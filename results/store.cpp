#include "results/store.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "core/base/child.hpp"
#include "core/base/error.hpp"

namespace kvlab {
namespace {

constexpr std::int64_t format_version = 1;

void sync(const std::filesystem::path& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0) {
    if (fd >= 0) close(fd);
    throw Error(path.string() + ": cannot be written to the disk");
  }
  close(fd);
}

std::vector<Row> rows_of(const Table& table) {
  std::vector<Row> rows;
  for (std::size_t i = 0; i < table.rows(); ++i) rows.push_back(table.row(i));
  return rows;
}

void check_format(const h5::Object& file, const std::string& wanted) {
  const std::string format = h5::read_string(file, "format");
  if (format != wanted) throw InputError("its format is '" + format + "', not '" + wanted + "'");
  const std::int64_t version = h5::read_integer(file, "version");
  if (version != format_version) {
    throw InputError("its format's version is " + std::to_string(version) + "; this kvlab reads version " +
                     std::to_string(format_version));
  }
}

// Reads with the file's name before what went wrong.
template <class Read>
auto named(const std::filesystem::path& path, Read&& read) {
  try {
    return read();
  } catch (const InputError& error) {
    const std::string text = error.what();
    throw InputError(text.starts_with(path.string()) ? text : path.string() + ": " + text);
  }
}

Table open_run(const std::filesystem::path& path) {
  return named(path, [&] {
    const h5::Object file = h5::open_file(path);
    check_format(file, "kvlab-results");
    return read_table(file, "cells");
  });
}

void write_tables(const h5::Object& file, const std::vector<ColumnSpec>& columns,
                  const std::vector<CellRecord>& records) {
  CellRecord all;
  std::vector<Row> cells;
  const auto add = [](std::vector<Row>& to, const std::vector<Row>& rows) {
    to.insert(to.end(), rows.begin(), rows.end());
  };
  for (const auto& record : records) {
    cells.push_back(record.cell);
    add(all.layers, record.layers);
    add(all.samples, record.samples);
    add(all.rungs, record.rungs);
  }
  write_table(file, "cells", "cell", make_table(columns, cells));
  write_table(file, "layers", "row", make_table(layer_columns(), all.layers));
  write_table(file, "samples", "row", make_table(sample_columns(), all.samples));
  write_table(file, "rungs", "row", make_table(rung_columns(), all.rungs));
}

}  // namespace

void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path&)>& write) {
  std::filesystem::path aside = path;
  aside += ".tmp." + std::to_string(getpid());
  try {
    write(aside);
    sync(aside, O_RDWR);
    std::filesystem::rename(aside, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(aside, ignored);
    throw;
  }
  sync(path.has_parent_path() ? path.parent_path() : ".", O_RDONLY | O_DIRECTORY);
}

void write_cell(const std::filesystem::path& path, const CellRecord& record) {
  write_atomically(path, [&](const std::filesystem::path& aside) {
    const h5::Object file = h5::create_file();
    h5::write_attribute(file, "format", std::string("kvlab-cell"));
    h5::write_attribute(file, "version", format_version);
    write_tables(file, cell_columns(), {record});
    h5::save_file(file, aside);
  });
}

CellRecord read_cell(const std::filesystem::path& path) {
  return named(path, [&] {
    const h5::Object file = h5::open_file(path);
    check_format(file, "kvlab-cell");
    const Table cells = read_table(file, "cells");
    if (cells.rows() != 1) throw InputError("it holds " + std::to_string(cells.rows()) + " cells, not 1");
    for (const auto& spec : cell_columns()) {
      const Column* column = cells.find(spec.name);
      if (column == nullptr || column->spec.type != spec.type) throw InputError("column " + spec.name + " is missing");
    }
    return CellRecord{cells.row(0), rows_of(read_table(file, "layers")), rows_of(read_table(file, "samples")),
                      rows_of(read_table(file, "rungs"))};
  });
}

void write_run(const std::filesystem::path& path, const RunInfo& info, const std::vector<CellRecord>& cells) {
  std::vector<ColumnSpec> columns = cell_columns();
  // Swept parameters stand behind `parameters`, where a reader looks for what tells the rows apart.
  const auto place = std::find_if(columns.begin(), columns.end(), [](const auto& c) { return c.name == "parameters"; });
  columns.insert(place + 1, info.swept.begin(), info.swept.end());
  write_atomically(path, [&](const std::filesystem::path& aside) {
    const h5::Object file = h5::create_file();
    h5::write_attribute(file, "format", std::string("kvlab-results"));
    h5::write_attribute(file, "version", format_version);
    for (const auto& [name, value] : info.attributes) {
      std::visit([&, &attribute = name](const auto& v) { h5::write_attribute(file, attribute, v); }, value);
    }
    const h5::Object experiment = h5::create_group(file, "experiment");
    h5::write_text(experiment, "source", info.source);
    h5::write_text(experiment, "expanded", info.expanded);
    write_tables(file, columns, cells);
    h5::save_file(file, aside);
  });
}

Table read_run(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) throw InputError(path.string() + ": there is no such file");
  const ChildResult probe = in_child([&] {
    open_run(path);
    return std::string();
  });
  if (!probe.ok) {
    throw InputError(probe.text.starts_with(path.string()) ? probe.text : path.string() + ": " + probe.text);
  }
  return open_run(path);
}

}  // namespace kvlab
