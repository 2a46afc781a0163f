#include "core/registry/description.hpp"

#include <bit>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/base/child.hpp"
#include "core/base/error.hpp"
#include "core/base/text.hpp"

namespace kvlab {
namespace {

using Json = nlohmann::json;

// The 8 bytes of a value, whatever its type: exact for reals too.
std::int64_t bits_of(kvlab_value value) { return std::bit_cast<std::int64_t>(value); }
// What a stranger wrote for people.
std::string prose_of(const Json& text) { return printable(text.get<std::string>()); }
kvlab_value value_of(const Json& bits) { return std::bit_cast<kvlab_value>(bits.get<std::int64_t>()); }

Json to_json(const Parameter& parameter) {
  return {{"name", parameter.name},
          {"type", static_cast<kvlab_parameter_type>(parameter.type)},
          {"default", bits_of(parameter.default_value)},
          {"minimum", bits_of(parameter.minimum)},
          {"maximum", bits_of(parameter.maximum)},
          {"choices", parameter.choices},
          {"integers", parameter.integers},
          {"unit", parameter.unit},
          {"meaning", parameter.meaning}};
}

Parameter parameter_of(const Json& json) {
  Parameter parameter;
  parameter.name = json.at("name").get<std::string>();
  const auto type = json.at("type").get<kvlab_parameter_type>();
  if (type > KVLAB_CHOICE) throw InputError("its description is damaged: a parameter's type");
  parameter.type = static_cast<ParameterType>(type);
  parameter.default_value = value_of(json.at("default"));
  parameter.minimum = value_of(json.at("minimum"));
  parameter.maximum = value_of(json.at("maximum"));
  parameter.choices = json.at("choices").get<std::vector<std::string>>();
  parameter.integers = json.at("integers").get<std::vector<std::int64_t>>();
  parameter.unit = prose_of(json.at("unit"));
  parameter.meaning = prose_of(json.at("meaning"));
  if (!in_range(parameter, parameter.default_value)) throw InputError("its description is damaged: a default");
  return parameter;
}

}  // namespace

// CBOR, which takes any bytes for a string.
std::string description_of(const Method& method) {
  Json json{{"id", method.id},
            {"kind", static_cast<std::uint32_t>(method.kind)},
            {"version", method.version},
            {"summary", method.summary},
            {"paper_title", method.paper_title},
            {"paper_arxiv", method.paper_arxiv},
            {"license", method.license},
            {"hash", method.hash},
            {"compiler", method.compiler},
            {"optimized", method.optimized},
            {"abilities", {method.abilities.attend_keys, method.abilities.attend_values, method.abilities.gather}},
            {"parameters", Json::array()}};
  for (const auto& parameter : method.parameters) json["parameters"].push_back(to_json(parameter));
  std::string bytes;
  Json::to_cbor(json, bytes);
  return bytes;
}

Method method_of(std::string_view description, const std::filesystem::path& path) {
  try {
    const Json json = Json::from_cbor(description.begin(), description.end());
    Method method;
    method.path = path;
    method.id = json.at("id").get<std::string>();
    const auto kind = json.at("kind").get<std::uint32_t>();
    if (kind != KVLAB_CODEC && kind != KVLAB_SELECTOR) throw InputError("its description is damaged: its kind");
    method.kind = static_cast<MethodKind>(kind);
    method.version = prose_of(json.at("version"));
    method.summary = prose_of(json.at("summary"));
    method.paper_title = prose_of(json.at("paper_title"));
    method.paper_arxiv = prose_of(json.at("paper_arxiv"));
    method.license = prose_of(json.at("license"));
    method.hash = prose_of(json.at("hash"));
    method.compiler = prose_of(json.at("compiler"));
    method.optimized = json.at("optimized").get<bool>();
    const auto abilities = json.at("abilities").get<std::vector<bool>>();
    method.abilities = {abilities.at(0), abilities.at(1), abilities.at(2)};
    for (const auto& parameter : json.at("parameters")) method.parameters.push_back(parameter_of(parameter));
    return method;
  } catch (const Json::exception& error) {
    throw InputError(std::string("its description is damaged: ") + error.what());
  } catch (const std::out_of_range&) {
    throw InputError("its description is damaged: its abilities");
  }
}

namespace {

ChildLimits opening() {
  ChildLimits limits{.seconds = 20};
#if !defined(KVLAB_SANITIZED)  // a sanitizer's shadow takes terabytes of address space
  limits.memory = std::uint64_t{3} << 30;
#endif
  return limits;
}

}  // namespace

Method describe_library(const std::filesystem::path& path) {
  const ChildResult child = in_child([&] { return description_of(load_library(path)); }, opening());
  if (!child.ok) throw InputError(child.text);
  return method_of(child.text, path);
}

}  // namespace kvlab
