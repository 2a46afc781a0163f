#include "core/registry/parameter.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "core/base/error.hpp"
#include "core/base/nearest.hpp"

namespace kvlab {
namespace {

template <class Number>
bool read_whole(std::string_view text, Number& out) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

std::string nearest_value(const Parameter& parameter, double wanted) {
  if (parameter.type == ParameterType::real) {
    return text_of(std::clamp(wanted, parameter.minimum.f, parameter.maximum.f));
  }
  if (parameter.integers.empty()) {
    return std::to_string(wanted < static_cast<double>(parameter.minimum.i) ? parameter.minimum.i
                                                                            : parameter.maximum.i);
  }
  const auto distance = [&](std::int64_t value) { return std::fabs(static_cast<double>(value) - wanted); };
  const auto best = std::min_element(parameter.integers.begin(), parameter.integers.end(),
                                     [&](auto a, auto b) { return distance(a) < distance(b); });
  return std::to_string(*best);
}

[[noreturn]] void refuse_type(const Parameter& parameter, std::string_view text) {
  throw InputError(parameter.name + " is '" + std::string(text) + "', not " +
                   (parameter.type == ParameterType::integer ? "an integer" : "a finite number") +
                   "; valid: " + range_of(parameter));
}

// `text`: the value, of a number that is not in its range.
[[noreturn]] void refuse_range(const Parameter& parameter, kvlab_value value, std::string_view text) {
  const double wanted = parameter.type == ParameterType::real ? value.f : static_cast<double>(value.i);
  throw InputError(parameter.name + " is " + std::string(text) + "; the nearest valid value is " +
                   nearest_value(parameter, wanted) + " (valid: " + range_of(parameter) + ")");
}

}  // namespace

const char* name_of(ParameterType type) {
  constexpr std::array names{"int", "float", "bool", "choice"};
  return names.at(static_cast<std::size_t>(type));
}

std::string range_of(const Parameter& parameter) {
  switch (parameter.type) {
    case ParameterType::boolean:
      return "true, false";
    case ParameterType::choice:
      return join(parameter.choices);
    case ParameterType::real:
      return text_of(parameter.minimum.f) + " .. " + text_of(parameter.maximum.f);
    case ParameterType::integer:
      break;
  }
  if (parameter.integers.empty()) {
    return std::to_string(parameter.minimum.i) + " .. " + std::to_string(parameter.maximum.i);
  }
  std::vector<std::string> texts;
  for (const auto value : parameter.integers) texts.push_back(std::to_string(value));
  return join(texts);
}

std::string text_of(double value) {
  std::array<char, 32> buffer{};
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), error == std::errc() ? end : buffer.data()};
}

std::string text_of(const Parameter& parameter, kvlab_value value) {
  switch (parameter.type) {
    case ParameterType::boolean:
      return value.i != 0 ? "true" : "false";
    case ParameterType::choice:
      return parameter.choices.at(static_cast<std::size_t>(value.i));
    case ParameterType::real:
      return text_of(value.f);
    case ParameterType::integer:
      break;
  }
  return std::to_string(value.i);
}

bool read_number(std::string_view text, std::int64_t& out) { return read_whole(text, out); }
bool read_number(std::string_view text, double& out) { return read_whole(text, out) && std::isfinite(out); }

bool in_range(const Parameter& parameter, kvlab_value value) {
  switch (parameter.type) {
    case ParameterType::boolean:
      return value.i == 0 || value.i == 1;
    case ParameterType::choice:
      return value.i >= 0 && value.i < static_cast<std::int64_t>(parameter.choices.size());
    case ParameterType::real:
      return value.f >= parameter.minimum.f && value.f <= parameter.maximum.f;
    case ParameterType::integer:
      break;
  }
  if (parameter.integers.empty()) return value.i >= parameter.minimum.i && value.i <= parameter.maximum.i;
  return std::find(parameter.integers.begin(), parameter.integers.end(), value.i) != parameter.integers.end();
}

void check(const Parameter& parameter, kvlab_value value) {
  if (in_range(parameter, value)) return;
  switch (parameter.type) {
    case ParameterType::boolean:
      throw InputError(parameter.name + " is " + std::to_string(value.i) + "; valid: 0 (false), 1 (true)");
    case ParameterType::choice:
      throw InputError(parameter.name + " is choice " + std::to_string(value.i) + "; valid: 0 .. " +
                       std::to_string(parameter.choices.size() - 1) + " (" + range_of(parameter) + ")");
    case ParameterType::real:
      if (std::isnan(value.f)) refuse_type(parameter, "nan");
      refuse_range(parameter, value, text_of(value.f));
    case ParameterType::integer:
      refuse_range(parameter, value, std::to_string(value.i));
  }
}

kvlab_value parse(const Parameter& parameter, std::string_view text) {
  kvlab_value value{};
  switch (parameter.type) {
    case ParameterType::boolean:
      if (text != "true" && text != "false") {
        throw InputError(parameter.name + " is '" + std::string(text) + "'; valid: true, false");
      }
      value.i = text == "true" ? 1 : 0;
      return value;
    case ParameterType::choice: {
      const auto found = std::find(parameter.choices.begin(), parameter.choices.end(), text);
      if (found == parameter.choices.end()) {
        throw InputError(parameter.name + " is '" + std::string(text) + "'; the nearest valid value is '" +
                         nearest(text, parameter.choices) + "' (valid: " + range_of(parameter) + ")");
      }
      value.i = found - parameter.choices.begin();
      return value;
    }
    case ParameterType::real:
      if (!read_number(text, value.f)) refuse_type(parameter, text);
      break;
    case ParameterType::integer:
      if (!read_number(text, value.i)) refuse_type(parameter, text);
      break;
  }
  if (!in_range(parameter, value)) refuse_range(parameter, value, text);
  return value;
}

}  // namespace kvlab
