#include "core/registry/library.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <limits>
#include <set>

#include "core/base/error.hpp"
#include "core/base/hash.hpp"

namespace kvlab {
namespace {

[[noreturn]] void refuse(const std::string& reason) { throw InputError(reason); }

bool is_name(std::string_view text) {
  const auto lower = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto inner = [&](char c) { return lower(c) || (c >= '0' && c <= '9') || c == '_'; };
  return !text.empty() && text.size() <= 64 && lower(text.front()) && std::all_of(text.begin(), text.end(), inner);
}

// A string of the descriptor: there, one line, of reasonable length.
std::string text(const char* field, const std::string& what, bool may_be_empty = false) {
  if (field == nullptr) refuse(what + " is null");
  constexpr std::size_t limit = 4096;
  const std::string copy(field, std::min(std::char_traits<char>::length(field), limit));
  if (copy.empty() && !may_be_empty) refuse(what + " is empty");
  if (copy.size() == limit || copy.find('\n') != std::string::npos) refuse(what + " is longer than one line");
  return copy;
}

std::string name(const char* field, const std::string& what) {
  std::string copy = text(field, what);
  if (!is_name(copy)) refuse(what + " '" + copy + "' is not of the form [a-z][a-z0-9_]*");
  return copy;
}

void read_range(const kvlab_parameter& declared, Parameter& parameter, const std::string& what) {
  if (declared.type == KVLAB_CHOICE) {
    if (declared.count == 0 || declared.choices == nullptr) refuse(what + " has no choices");
    for (std::uint64_t i = 0; i < declared.count; ++i) parameter.choices.push_back(text(declared.choices[i], what));
  } else if (declared.type == KVLAB_INT && declared.integers != nullptr) {
    if (declared.count == 0) refuse(what + " has an empty list of values");
    parameter.integers.assign(declared.integers, declared.integers + declared.count);
  }
}

Parameter read_parameter(const kvlab_parameter& declared, std::uint32_t index) {
  std::string what = "parameter " + std::to_string(index);
  if (declared.struct_size < sizeof(kvlab_parameter)) refuse(what + " has the wrong struct_size");
  Parameter parameter;
  parameter.name = name(declared.name, what + "'s name");
  what = "parameter '" + parameter.name + "'";
  constexpr std::array taken{"method", "tokens", "keep", "share", "floor", "sweep", "keys", "values", "codec"};
  if (std::find(taken.begin(), taken.end(), parameter.name) != taken.end()) {
    refuse(what + " uses a name that experiment files keep for themselves");
  }
  if (declared.type > KVLAB_CHOICE) {
    refuse(what + " has type " + std::to_string(declared.type) + ", which is reserved (int, float, bool, choice work)");
  }
  parameter.type = static_cast<ParameterType>(declared.type);
  parameter.default_value = declared.default_value;
  parameter.minimum = declared.minimum;
  parameter.maximum = declared.maximum;
  parameter.unit = text(declared.unit, what + "'s unit", true);
  parameter.meaning = text(declared.meaning, what + "'s meaning");
  read_range(declared, parameter, what);
  if (declared.type == KVLAB_FLOAT && (!std::isfinite(declared.minimum.f) || !std::isfinite(declared.maximum.f))) {
    refuse(what + " has a range that is not finite");
  }
  if (!in_range(parameter, parameter.default_value)) refuse(what + " has a default outside of its range");
  return parameter;
}

std::vector<Parameter> read_parameters(const kvlab_descriptor& descriptor) {
  constexpr std::uint32_t limit = 256;
  if (descriptor.parameter_count > limit) refuse("it declares more than 256 parameters");
  if (descriptor.parameter_count > 0 && descriptor.parameters == nullptr) refuse("its parameters are null");
  std::vector<Parameter> parameters;
  std::set<std::string> names;
  for (std::uint32_t i = 0; i < descriptor.parameter_count; ++i) {
    parameters.push_back(read_parameter(descriptor.parameters[i], i));
    if (!names.insert(parameters.back().name).second) refuse("it declares '" + parameters.back().name + "' twice");
  }
  return parameters;
}

void check_functions(const kvlab_descriptor& descriptor) {
  if (descriptor.kind == KVLAB_CODEC) {
    const kvlab_codec_functions* f = descriptor.codec;
    if (f == nullptr || f->struct_size < sizeof *f) refuse("its codec functions are missing or of the wrong size");
    if (f->create == nullptr || f->destroy == nullptr || f->traits == nullptr || f->bound == nullptr ||
        f->encode == nullptr || f->decode == nullptr) {
      refuse("one of its codec functions is null");
    }
  } else if (descriptor.kind == KVLAB_SELECTOR) {
    const kvlab_selector_functions* f = descriptor.selector;
    if (f == nullptr || f->struct_size < sizeof *f) refuse("its selector functions are missing or of the wrong size");
    if (f->create == nullptr || f->destroy == nullptr || f->reads == nullptr || f->scope == nullptr ||
        f->scratch == nullptr || f->scores == nullptr) {
      refuse("one of its selector functions is null");
    }
    if (f->state_per_token != 0) refuse("it asks for a state per token, which is reserved");
  } else {
    refuse("its kind is " + std::to_string(descriptor.kind) + "; a codec is 1, a selector 2");
  }
}

void read_abilities(const kvlab_descriptor& descriptor, Method& method) {
  if (descriptor.ability == nullptr) return;
  for (const char* reserved : {"kvlab.append", "kvlab.fit", "kvlab.cuda"}) {
    if (descriptor.ability(reserved) != nullptr) refuse(std::string("it offers ") + reserved + ", which is reserved");
  }
  if (descriptor.kind != KVLAB_CODEC) return;
  const auto* keys = static_cast<const kvlab_attend_keys*>(descriptor.ability(KVLAB_ABILITY_ATTEND_KEYS));
  const auto* values = static_cast<const kvlab_attend_values*>(descriptor.ability(KVLAB_ABILITY_ATTEND_VALUES));
  if (keys != nullptr && (keys->struct_size < sizeof *keys || keys->prepared_bytes == nullptr ||
                          keys->prepare == nullptr || keys->scores == nullptr)) {
    refuse("its ability attend_keys is incomplete");
  }
  if (values != nullptr && (values->struct_size < sizeof *values || values->width == nullptr ||
                            values->accumulate == nullptr || values->finish == nullptr)) {
    refuse("its ability attend_values is incomplete");
  }
  const auto* gather = static_cast<const kvlab_gather*>(descriptor.ability(KVLAB_ABILITY_GATHER));
  if (gather != nullptr && (gather->struct_size < sizeof *gather || gather->gather == nullptr)) {
    refuse("its ability gather is incomplete");
  }
  method.abilities = {keys != nullptr, values != nullptr, gather != nullptr};
  method.gather = gather;
  method.attend_keys = keys;
  method.attend_values = values;
}

const kvlab_descriptor& find_descriptor(const std::filesystem::path& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) refuse(std::string("it cannot be loaded: ") + dlerror());
  const auto* descriptor = static_cast<const kvlab_descriptor*>(dlsym(library, KVLAB_PLUGIN_SYMBOL));
  if (descriptor == nullptr) refuse("it has no symbol " KVLAB_PLUGIN_SYMBOL ", so it is not a kvlab plugin");
  if (descriptor->magic != KVLAB_ABI_MAGIC) refuse("its " KVLAB_PLUGIN_SYMBOL " does not start with kvlab's magic");
  if (descriptor->abi_version != KVLAB_ABI_VERSION) {
    refuse("it was built for plugin ABI " + std::to_string(descriptor->abi_version) + ", this kvlab has ABI " +
           std::to_string(KVLAB_ABI_VERSION) + "; build it again with this kvlab's headers");
  }
  if (descriptor->struct_size < sizeof(kvlab_descriptor)) refuse("its descriptor has the wrong struct_size");
  return *descriptor;
}

}  // namespace

std::string build_warning(const Method& method) {
  if (method.optimized) return "";
  return method.id + " was built without optimization" +
         (method.compiler.empty() ? "" : " (by " + method.compiler + ")") +
         ": its times are not the method's; build it with CMAKE_BUILD_TYPE=Release";
}

Method load_library(const std::filesystem::path& path) {
  const kvlab_descriptor& descriptor = find_descriptor(path);
  Method method;
  method.path = path;
  method.hash = hash_of_file(path);
  method.descriptor = &descriptor;
  method.id = name(descriptor.id, "its id");
  method.version = text(descriptor.version, "its version");
  method.summary = text(descriptor.summary, "its summary");
  method.paper_title = text(descriptor.paper_title, "its paper's title", true);
  method.paper_arxiv = text(descriptor.paper_arxiv, "its paper's arXiv id", true);
  method.license = text(descriptor.license, "its licence");
  method.compiler = text(descriptor.compiler, "its compiler", true);
  if (descriptor.optimized > 1)
    refuse("its field optimized is " + std::to_string(descriptor.optimized) + "; valid: 0, 1");
  method.optimized = descriptor.optimized == 1;
  check_functions(descriptor);
  method.kind = static_cast<MethodKind>(descriptor.kind);
  method.parameters = read_parameters(descriptor);
  read_abilities(descriptor, method);
  return method;
}

}  // namespace kvlab
