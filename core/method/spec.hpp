// A method with its parameters: what one step of a pipeline is made from. The caller names it, as an experiment does:
//
//   pipeline.keys = method_spec(registry, MethodKind::codec, name, {{"bits", 4}, {"symmetric", false}});
//
// What is not named has its default.
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <vector>

#include "core/registry/registry.hpp"

namespace kvlab {

struct MethodSpec {
  const Method* method = nullptr;   // the registry's, which outlives all instances
  std::vector<kvlab_value> values;  // in the order of declaration, complete
};

// A parameter's name and its value: a number, a bool, or the text that YAML has for it ("4", "0.5", "true", "f16").
struct Setting {
  Setting(std::string_view name_, std::string_view text_) : name(name_), text(text_) {}
  template <std::same_as<bool> Bool>
  Setting(std::string_view name_, Bool value) : name(name_), text(value ? "true" : "false") {}
  template <std::integral Integer>
    requires(!std::same_as<Integer, bool>)
  Setting(std::string_view name_, Integer value) : name(name_), text(std::to_string(value)) {}
  template <std::floating_point Real>
  Setting(std::string_view name_, Real value) : name(name_), text(text_of(static_cast<double>(value))) {}

  std::string name;
  std::string text;
};

// Throws InputError with the nearest valid name, or why the library that would have it was refused.
const Method& find_method(const Registry& registry, MethodKind kind, std::string_view id);

// Throws InputError also for a parameter that the method has not, one given twice, and a value out of its range, with
// the nearest valid choice.
MethodSpec method_spec(const Registry& registry, MethodKind kind, std::string_view id,
                       const std::vector<Setting>& settings = {});

// Throws InputError where no instance of that kind can be made of it: no method, one of the other kind, one that is
// only described, values that are too few, too many or out of range. Instances call it.
void check(const MethodSpec& spec, MethodKind kind);

}  // namespace kvlab
