#include "core/conformance/settings.hpp"

namespace kvlab::conformance {
namespace {

kvlab_value integer(std::int64_t i) {
  kvlab_value value{};
  value.i = i;
  return value;
}

kvlab_value real(double f) {
  kvlab_value value{};
  value.f = f;
  return value;
}

// The defaults are among them.
std::vector<kvlab_value> values_of(const Parameter& parameter) {
  std::vector<kvlab_value> values;
  switch (parameter.type) {
    case ParameterType::boolean:
      return {integer(0), integer(1)};
    case ParameterType::choice:
      for (std::size_t c = 0; c < parameter.choices.size(); ++c)
        values.push_back(integer(static_cast<std::int64_t>(c)));
      return values;
    case ParameterType::integer:
      for (const auto value : parameter.integers) values.push_back(integer(value));
      if (!values.empty()) return values;
      break;
    case ParameterType::real:
      return {parameter.minimum, real((parameter.minimum.f + parameter.maximum.f) / 2), parameter.maximum};
  }
  return {parameter.minimum, parameter.maximum};
}

}  // namespace

std::vector<MethodSpec> settings(const Method& method) {
  MethodSpec defaults{&method, {}};
  for (const auto& parameter : method.parameters) defaults.values.push_back(parameter.default_value);
  std::vector<MethodSpec> all{defaults};
  for (std::size_t p = 0; p < method.parameters.size(); ++p) {
    for (const kvlab_value value : values_of(method.parameters[p])) {
      if (value.i == defaults.values[p].i) continue;  // all 8 bytes, whatever the type
      all.push_back(defaults);
      all.back().values[p] = value;
    }
  }
  return all;
}

std::string text_of(const MethodSpec& spec) {
  std::string text;
  for (std::size_t p = 0; p < spec.values.size(); ++p) {
    const Parameter& parameter = spec.method->parameters[p];
    text += (text.empty() ? "" : " ") + parameter.name + "=" + kvlab::text_of(parameter, spec.values[p]);
  }
  return text;
}

}  // namespace kvlab::conformance
