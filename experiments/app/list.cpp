#include <iostream>

#include "core/base/nearest.hpp"
#include "experiments/app/commands.hpp"
#include "experiments/plan/resolve.hpp"
#include "experiments/workloads/synthetic/generator.hpp"
#include "experiments/workloads/synthetic/synthetic.hpp"
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

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text + "  ";
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
              << method.summary << "\n  " << padded("", 16) << method.path.string() << '\n';
  }
  for (const auto& candidate : registry.candidates()) {
    if (candidate.state == Registry::Candidate::State::loaded) continue;
    std::cout << "  " << padded(candidate.path.stem().string(), 16) << name_of(candidate.state) << ": "
              << candidate.reason << "\n  " << padded("", 16) << candidate.path.string() << '\n';
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

void describe_parameters(const std::vector<Parameter>& parameters) {
  for (const auto& p : parameters) {
    std::cout << "  " << padded(p.name, 14) << padded(kvlab::name_of(p.type), 6)
              << padded("default " + text_of(p, p.default_value), 18) << "valid: " << range_of(p)
              << (p.unit.empty() ? "" : " [" + p.unit + "]") << "\n  " << padded("", 14) << p.meaning << '\n';
  }
}

void describe_method(const Method& method) {
  std::cout << method.id << ", a " << kvlab::name_of(method.kind) << ", version " << method.version << " ("
            << method.license << ")\n"
            << method.summary << '\n';
  if (!method.paper_title.empty()) std::cout << "paper: " << method.paper_title;
  if (!method.paper_arxiv.empty()) std::cout << ", arXiv " << method.paper_arxiv;
  if (!method.paper_title.empty()) std::cout << '\n';
  std::cout << "library: " << method.path.string() << '\n';
  if (method.kind == MethodKind::codec) {
    std::cout << "attention on the bytes: keys " << (method.attend_keys != nullptr ? "yes" : "no, decoded by tiles")
              << ", values " << (method.attend_values != nullptr ? "yes" : "no, decoded by tiles") << '\n';
  }
  std::cout << (method.parameters.empty() ? "no parameters\n" : "parameters\n");
  describe_parameters(method.parameters);
  std::cout << "example\n";
  std::string settings;
  for (const auto& p : method.parameters) settings += ", " + p.name + ": " + text_of(p, p.default_value);
  if (method.kind == MethodKind::codec) {
    std::cout << "  pipelines:\n    mine:\n      codec: {method: " << method.id << settings << "}\n";
  } else {
    std::cout << "  pipelines:\n    mine:\n      cache: {sinks: 4, tail: 64}\n      select:\n        - {method: "
              << method.id << ", keep: 0.5" << settings << "}\n";
  }
}

void describe_generator(const Generator& generator) {
  std::cout << generator.name << ", a workload generator, version " << generator.version << '\n'
            << generator.summary << "\nknown answer: " << generator.known_answer << "\nparameters\n";
  describe_parameters(common_parameters());
  std::cout << "  " << padded("prefill", 14) << padded("int", 6) << padded("default tokens", 18)
            << "valid: 1 .. tokens\n"
            << "  " << padded("", 14) << "tokens that are compressed; judged queries come after them\n";
  describe_parameters(generator.parameters);
  std::cout << "example\n  workloads:\n    mine: {synthetic: " << generator.name << ", tokens: 4096}\n";
}

void describe(const std::string& name, const Registry& registry) {
  if (const Method* method = registry.find(name)) {
    describe_method(*method);
    return;
  }
  std::vector<std::string> names = registry.ids();
  for (const auto& generator : generators()) {
    if (generator.name == name) {
      describe_generator(generator);
      return;
    }
    names.push_back(generator.name);
  }
  throw InputError("describe: there is no method or generator '" + name + "'" + suggestion(name, names));
}

}  // namespace

void add_list(CLI::App& cli, App& app) {
  auto* command = cli.add_subcommand("list", "methods, workload generators, metrics, backends");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "as JSON");
  command->callback([&app, json] {
    const Registry registry = app.registry();
    if (*json) {
      std::cout << list_json(registry).dump(2) << '\n';
    } else {
      list_for_people(registry);
    }
  });
}

void add_describe(CLI::App& cli, App& app) {
  auto* command = cli.add_subcommand("describe", "a method's or generator's parameters, paper, an example");
  auto name = std::make_shared<std::string>();
  command->add_option("NAME", *name, "method or generator")->required();
  command->callback([&app, name] { describe(*name, app.registry()); });
}

}  // namespace kvlab
