// A method's declared parameter, as the host holds it: parsing, range, texts for people.
#pragma once

#include <kvlab/abi.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvlab {

enum class ParameterType : kvlab_parameter_type {
  integer = KVLAB_INT,
  real = KVLAB_FLOAT,
  boolean = KVLAB_BOOL,
  choice = KVLAB_CHOICE
};

struct Parameter {
  std::string name;
  ParameterType type{};
  kvlab_value default_value{};
  kvlab_value minimum{};
  kvlab_value maximum{};
  std::vector<std::string> choices;    // of a choice
  std::vector<std::int64_t> integers;  // allowed ones; empty: the whole range
  std::string unit;
  std::string meaning;
};

const char* name_of(ParameterType type);  // int, float, bool, choice

// "2, 3, 4, 5, 6, 8", "0 .. 512", "true, false", "f16, bf16, f32"
std::string range_of(const Parameter& parameter);

// The value as YAML spells it: "8", "0.9", "true", "f16".
std::string text_of(const Parameter& parameter, kvlab_value value);

// Parses and checks; throws InputError: "bits is 7; the nearest valid value is 6 (valid: 2, 3, 4, 5, 6, 8)".
kvlab_value parse(const Parameter& parameter, std::string_view text);

// Throws InputError likewise for a value that is none of the parameter's.
void check(const Parameter& parameter, kvlab_value value);

bool in_range(const Parameter& parameter, kvlab_value value);

// Shortest text that reads back as the same double.
std::string text_of(double value);

// The whole text as a number of that type; false when it is anything else.
bool read_number(std::string_view text, std::int64_t& out);
bool read_number(std::string_view text, double& out);  // finite

}  // namespace kvlab
