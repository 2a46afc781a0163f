#include "core/method/spec.hpp"

#include <algorithm>

#include "core/base/error.hpp"
#include "core/base/nearest.hpp"

namespace kvlab {
namespace {

std::string wrong_kind(const Method& method, MethodKind wanted) {
  return "'" + method.id + "' is a " + name_of(method.kind) + ", and a " + name_of(wanted) + " stands here";
}

std::vector<std::string> names_of(const std::vector<Parameter>& parameters) {
  std::vector<std::string> names;
  for (const auto& parameter : parameters) names.push_back(parameter.name);
  return names;
}

}  // namespace

const Method& find_method(const Registry& registry, MethodKind kind, std::string_view id) {
  const Method* method = registry.find(id);
  if (method != nullptr && method->kind == kind) return *method;
  if (method != nullptr) throw InputError(wrong_kind(*method, kind) + suggestion(id, registry.ids(kind)));
  const std::string name(id);
  for (const auto& candidate : registry.candidates()) {
    if (candidate.state == Registry::Candidate::State::refused && candidate.path.stem() == name) {
      throw InputError("method '" + name + "' is not usable: " + candidate.path.string() + ": " + candidate.reason);
    }
  }
  std::string where;
  if (registry.candidates().empty()) {
    for (const auto& entry : registry.searched())
      where += (where.empty() ? ", no library at all in " : ", ") + entry.string();
  }
  throw InputError("there is no " + std::string(name_of(kind)) + " '" + name + "'" +
                   suggestion(id, registry.ids(kind)) + where);
}

MethodSpec method_spec(const Registry& registry, MethodKind kind, std::string_view id,
                       const std::vector<Setting>& settings) {
  const Method& method = find_method(registry, kind, id);
  MethodSpec spec{&method, {}};
  for (const auto& parameter : method.parameters) spec.values.push_back(parameter.default_value);
  const std::vector<std::string> names = names_of(method.parameters);
  std::vector<bool> given(names.size());
  for (const auto& setting : settings) {
    const auto at = static_cast<std::size_t>(std::find(names.begin(), names.end(), setting.name) - names.begin());
    if (at == names.size()) {
      throw InputError(method.id + " has no '" + setting.name + "'" + suggestion(setting.name, names));
    }
    if (given[at]) throw InputError(method.id + ": " + setting.name + " is given twice");
    given[at] = true;
    try {
      spec.values[at] = parse(method.parameters[at], setting.text);
    } catch (const InputError& error) {
      throw InputError(method.id + ": " + error.what());
    }
  }
  return spec;
}

void check(const MethodSpec& spec, MethodKind kind) {
  if (spec.method == nullptr) {
    throw InputError("a " + std::string(name_of(kind)) + " has no method (null); valid: one of a registry's");
  }
  const Method& method = *spec.method;
  if (method.kind != kind) throw InputError(wrong_kind(method, kind));
  if (method.descriptor == nullptr) {
    throw InputError("'" + method.id + "' is only described and has no functions; valid: one of a registry that loads");
  }
  if (spec.values.size() != method.parameters.size()) {
    throw InputError(method.id + " is given " + std::to_string(spec.values.size()) +
                     " values; valid: one for each of " + "its " + std::to_string(method.parameters.size()) +
                     " parameters" +
                     (method.parameters.empty() ? "" : ", in this order: " + join(names_of(method.parameters))));
  }
  for (std::size_t i = 0; i < spec.values.size(); ++i) {
    try {
      check(method.parameters[i], spec.values[i]);
    } catch (const InputError& error) {
      throw InputError(method.id + ": " + error.what());
    }
  }
}

}  // namespace kvlab
