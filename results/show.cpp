#include "results/show.hpp"

#include <algorithm>
#include <cmath>
#include <ostream>
#include <string_view>

#include "core/base/error.hpp"
#include "core/base/nearest.hpp"
#include "core/base/text.hpp"
#include "core/registry/parameter.hpp"
#include "results/repeats.hpp"

namespace kvlab {
namespace {

const Column& find(const Table& table, const std::string& name, const char* flag) {
  const Column* column = table.find(name);
  if (column == nullptr) {
    throw InputError(std::string(flag) + ": there is no column '" + name + "'" + suggestion(name, table.names()));
  }
  return *column;
}

bool any(const Column* column, bool (*says)(const Value&)) {
  return column != nullptr && std::any_of(column->values.begin(), column->values.end(), says);
}

bool is_measured(const Value& value) {
  const auto* real = std::get_if<double>(&value);
  return real == nullptr || !std::isnan(*real);
}

bool is_not_ok(const Value& value) { return value != Value(std::string("ok")); }

bool differs(const Column* column) {
  return column != nullptr && std::adjacent_find(column->values.begin(), column->values.end(), std::not_equal_to<>()) !=
                                  column->values.end();
}

// What tells rows apart, then what was measured; status and reason where something is not ok.
std::vector<std::string> usual_columns(const Table& cells, bool is_together) {
  std::vector<std::string> names{"pipeline"};
  // Swept parameters are the ones with a dot, between `parameters` and `batch`.
  for (const auto& name : cells.names()) {
    if (name.find('.') != std::string::npos) names.push_back(name);
  }
  for (const char* name : {"workload", "backend", "repeat"}) {
    const bool is_label = std::string_view(name) != "repeat" || !is_together;
    if (is_label && differs(cells.find(name))) names.emplace_back(name);
  }
  const bool failed = any(cells.find("status"), is_not_ok);
  if (failed) names.emplace_back("status");
  for (const char* name : {"kept_tokens", "bits_per_element", "compression_ratio", "key_error", "value_error",
                           "output_error", "output_cosine", "compress_seconds", "attend_seconds", "append_seconds_mean",
                           "step_seconds", "step_seconds_p99"}) {
    if (any(cells.find(name), is_measured)) names.emplace_back(name);
  }
  if (failed && cells.find("reason") != nullptr) names.emplace_back("reason");
  return names;
}

// NaN last, whichever way.
bool before(const Value& a, const Value& b, bool descending) {
  const auto is_nan = [](const Value& value) {
    const auto* real = std::get_if<double>(&value);
    return real != nullptr && std::isnan(*real);
  };
  if (is_nan(a) || is_nan(b)) return !is_nan(a) && is_nan(b);
  return descending ? b < a : a < b;
}

void sort_by(std::string sort, const Table& cells, std::vector<Repeats>& lines) {
  if (sort.empty()) return;
  const bool descending = sort.front() == '-';
  if (descending) sort.erase(0, 1);
  const Column& column = find(cells, sort, "--sort");
  std::stable_sort(lines.begin(), lines.end(), [&](const Repeats& a, const Repeats& b) {
    return before(value_of(column, a), value_of(column, b), descending);
  });
}

std::string csv_field(const Value& value) {
  if (const auto* real = std::get_if<double>(&value)) return std::isnan(*real) ? "" : text_of(*real);
  const auto* words = std::get_if<std::string>(&value);
  const std::string text = words != nullptr ? printable(*words) : text_for_people(value);
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

// Characters, not bytes, of UTF-8.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

void print_aligned(const std::vector<std::vector<std::string>>& lines, const std::vector<bool>& right,
                   std::ostream& out) {
  std::vector<std::size_t> widths(right.size(), 0);
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], width_of(line[i]));
  }
  for (const auto& line : lines) {
    std::string text;
    for (std::size_t i = 0; i < line.size(); ++i) {
      const std::string pad(widths[i] - width_of(line[i]), ' ');
      text += (i == 0 ? "" : "  ") + (right[i] ? pad + line[i] : line[i] + pad);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out << text << '\n';
  }
}

}  // namespace

void show(const Table& cells, const ShowOptions& options, std::ostream& out) {
  if (cells.rows() == 0 && !options.csv && options.columns.empty()) return;  // what there is not is said elsewhere
  const auto tells_apart = [](const std::string& name) { return name == "id" || name == "repeat" || name == "seed"; };
  const bool is_together =
      !options.csv && !options.rows && std::none_of(options.columns.begin(), options.columns.end(), tells_apart);
  std::vector<std::string> names = options.columns;
  if (names.empty()) names = options.csv ? cells.names() : usual_columns(cells, is_together);
  std::vector<const Column*> columns;
  std::vector<bool> right;
  for (const auto& name : names) {
    columns.push_back(&find(cells, name, "--columns"));
    right.push_back(columns.back()->spec.type != ColumnType::text);
  }
  std::vector<std::vector<std::string>> lines{names};
  for (auto& name : lines.front()) name = options.csv ? csv_field(name) : text_for_people(name);
  std::vector<Repeats> rows = is_together ? together(cells) : apart(cells);
  sort_by(options.sort, cells, rows);
  for (const Repeats& repeats : rows) {
    std::vector<std::string> line;
    for (const Column* column : columns) {
      line.push_back(options.csv ? csv_field(column->values[repeats.front()]) : text_for_people(*column, repeats));
    }
    lines.push_back(std::move(line));
  }
  if (!options.csv) {
    print_aligned(lines, right, out);
    return;
  }
  for (const auto& line : lines) out << join(line, ",") << '\n';
}

}  // namespace kvlab
