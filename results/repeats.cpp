#include "results/repeats.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace kvlab {
namespace {

std::vector<double> measured(const Column& column, const Repeats& repeats) {
  std::vector<double> values;
  for (const std::size_t row : repeats) {
    const double value = std::get<double>(column.values[row]);
    if (!std::isnan(value)) values.push_back(value);
  }
  return values;
}

double mean_of(const std::vector<double>& values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// With n - 1, of at least two.
double deviation_of(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

// "ok" where all are, "2 of 3 ok" where some are, else the first failure.
std::string status_of(const Column& column, const Repeats& repeats) {
  const auto is_ok = [&](std::size_t row) { return std::get<std::string>(column.values[row]) == "ok"; };
  const auto ok = static_cast<std::size_t>(std::count_if(repeats.begin(), repeats.end(), is_ok));
  if (ok > 0 && ok < repeats.size()) return std::to_string(ok) + " of " + std::to_string(repeats.size()) + " ok";
  return std::get<std::string>(column.values[repeats.front()]);
}

}  // namespace

std::vector<Repeats> together(const Table& cells) {
  std::vector<const Column*> names;
  for (const char* name : {"pipeline", "workload", "backend", "parameters"}) {
    const Column* column = cells.find(name);
    if (column == nullptr) return apart(cells);
    names.push_back(column);
  }
  std::vector<Repeats> groups;
  std::map<std::vector<Value>, std::size_t> known;
  for (std::size_t row = 0; row < cells.rows(); ++row) {
    std::vector<Value> key;
    for (const Column* column : names) key.push_back(column->values[row]);
    const auto [found, is_new] = known.try_emplace(std::move(key), groups.size());
    if (is_new) groups.emplace_back();
    groups[found->second].push_back(row);
  }
  return groups;
}

std::vector<Repeats> apart(const Table& cells) {
  std::vector<Repeats> groups;
  for (std::size_t row = 0; row < cells.rows(); ++row) groups.push_back({row});
  return groups;
}

Value value_of(const Column& column, const Repeats& repeats) {
  if (column.spec.type == ColumnType::real) return mean_of(measured(column, repeats));
  if (column.spec.name == "status") return status_of(column, repeats);
  const auto says = [&](std::size_t row) { return column.values[row] != Value(std::string()); };
  const auto first = std::find_if(repeats.begin(), repeats.end(), says);
  return column.values[first == repeats.end() ? repeats.front() : *first];
}

std::string text_for_people(const Column& column, const Repeats& repeats) {
  std::string text = text_for_people(value_of(column, repeats));
  if (column.spec.type != ColumnType::real) return text;
  const std::vector<double> values = measured(column, repeats);
  if (values.size() < 2) return text;
  const double deviation = deviation_of(values);
  // Below the rounding of the mean there is no spread.
  const bool is_equal = deviation <= 1e-12 * std::fabs(mean_of(values));
  return is_equal ? text : text + " ±" + text_for_people(Value(deviation));
}

}  // namespace kvlab
