#include <iostream>

#include "core/base/text.hpp"
#include "experiments/app/commands.hpp"
#include "experiments/plan/resolve.hpp"
#include "experiments/workloads/synthetic/generator.hpp"
#include "results/schema.hpp"

namespace kvlab {
namespace {

const char* name_of(Registry::Candidate::State state) {
  switch (state) {
    case Registry::Candidate::State::loaded:
      return "loaded";
    case Registry::Candidate::State::refused:
      return "refused";
    case Registry::Candidate::State::shadowed:
      break;
  }
  return "shadowed";
}

// Columns of a result that hold a measurement.
std::vector<std::string> metrics() {
  std::vector<std::string> names;
  for (const auto& column : cell_columns()) {
    if (column.type == ColumnType::real) names.push_back(column.name);
  }
  return names;
}

constexpr const char* cuda_reason = "not in this build: this version of kvlab has no CUDA backend";

void list_for_people(const Registry& registry) {
  std::cout << "methods\n";
  for (const auto& method : registry.methods()) {
    std::cout << "  " << padded(method.id, 16) << padded(kvlab::name_of(method.kind), 8) << padded(method.version, 7)
              << method.summary << "\n  " << padded("", 16) << printable(method.path.string()) << '\n';
    if (!method.optimized) std::cout << "  " << padded("", 16) << "WARNING: " << build_warning(method) << '\n';
  }
  for (const auto& candidate : registry.candidates()) {
    if (candidate.state == Registry::Candidate::State::loaded) continue;
    std::cout << "  " << padded(printable(candidate.path.stem().string()), 16) << name_of(candidate.state) << ": "
              << message(candidate.reason) << "\n  " << padded("", 16) << printable(candidate.path.string()) << '\n';
  }
  std::cout << "workload generators\n";
  for (const auto& generator : generators()) {
    std::cout << "  " << padded(generator.name, 16) << generator.summary << '\n';
  }
  std::cout << "metrics\n";
  for (const auto& column : cell_columns()) {
    if (column.type == ColumnType::real) std::cout << "  " << padded(column.name, 26) << column.description << '\n';
  }
  std::cout << "backends\n  " << padded("cpu", 16) << "works\n  " << padded("cuda", 16) << cuda_reason << '\n';
}

Json parameter_json(const Parameter& parameter) {
  return {{"name", parameter.name},
          {"type", kvlab::name_of(parameter.type)},
          {"default", text_of(parameter, parameter.default_value)},
          {"valid", range_of(parameter)},
          {"unit", parameter.unit},
          {"meaning", parameter.meaning}};
}

Json list_json(const Registry& registry) {
  Json json{{"methods", Json::array()}, {"libraries", Json::array()}, {"generators", Json::array()}};
  for (const auto& method : registry.methods()) {
    Json parameters = Json::array();
    for (const auto& parameter : method.parameters) parameters.push_back(parameter_json(parameter));
    json["methods"].push_back({{"id", method.id},
                               {"kind", kvlab::name_of(method.kind)},
                               {"version", method.version},
                               {"compiler", method.compiler},
                               {"optimized", method.optimized},
                               {"summary", method.summary},
                               {"path", method.path.string()},
                               {"parameters", parameters}});
  }
  for (const auto& candidate : registry.candidates()) {
    json["libraries"].push_back({{"path", candidate.path.string()},
                                 {"state", name_of(candidate.state)},
                                 {"id", candidate.id},
                                 {"reason", candidate.reason}});
  }
  for (const auto& generator : generators()) {
    json["generators"].push_back({{"name", generator.name}, {"summary", generator.summary}});
  }
  json["metrics"] = metrics();
  json["backends"] = {{{"name", "cpu"}, {"available", true}, {"reason", ""}},
                      {{"name", "cuda"}, {"available", false}, {"reason", cuda_reason}}};
  return json;
}

}  // namespace

void add_list(CLI::App& cli, App& app) {
  auto* command = cli.add_subcommand("list", "methods, workload generators, metrics, backends");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "as JSON");
  command->callback([&app, json] {
    const Registry registry = app.registry();
    if (*json) {
      std::cout << json_text(list_json(registry)) << '\n';
    } else {
      list_for_people(registry);
    }
  });
}

}  // namespace kvlab
