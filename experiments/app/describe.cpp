#include <algorithm>
#include <iostream>

#include "core/base/error.hpp"
#include "core/base/nearest.hpp"
#include "core/base/text.hpp"
#include "experiments/app/commands.hpp"
#include "experiments/workloads/synthetic/generator.hpp"
#include "experiments/workloads/synthetic/synthetic.hpp"
#include "results/schema.hpp"

namespace kvlab {
namespace {

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
  std::cout << "library: " << printable(method.path.string()) << '\n';
  if (method.kind == MethodKind::codec) {
    std::cout << "attention on the bytes: keys " << (method.abilities.attend_keys ? "yes" : "no, decoded by tiles")
              << ", values " << (method.abilities.attend_values ? "yes" : "no, decoded by tiles") << '\n';
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

void describe_column(const ColumnSpec& column) {
  std::cout << column.name << ", a column of results" << (column.unit.empty() ? "" : ", unit " + column.unit) << '\n'
            << column.description << '\n';
}

// "codec.bits", "bits": a parameter, or the path of one.
std::string methods_with(const std::string& path, const Registry& registry) {
  const std::string name = path.substr(path.rfind('.') + 1);
  std::vector<std::string> ids;
  for (const auto& id : registry.ids()) {
    const auto& parameters = registry.find(id)->parameters;
    if (std::any_of(parameters.begin(), parameters.end(), [&](const auto& p) { return p.name == name; })) {
      ids.push_back(id);
    }
  }
  return join(ids);
}

void describe(const std::string& name, const Registry& registry) {
  if (const Method* method = registry.find(name)) {
    describe_method(*method);
    return;
  }
  std::vector<std::string> names = registry.ids();
  for (const auto& column : cell_columns()) {
    if (column.name == name) {
      describe_column(column);
      return;
    }
    names.push_back(column.name);
  }
  for (const auto& generator : generators()) {
    if (generator.name == name) {
      describe_generator(generator);
      return;
    }
    names.push_back(generator.name);
  }
  if (const std::string methods = methods_with(name, registry); !methods.empty()) {
    throw InputError("describe: '" + name + "' is a parameter; describe a method that has it: " + methods);
  }
  throw InputError("describe: there is no method, generator or column of results '" + name + "'" +
                   suggestion(name, names));
}

}  // namespace

void add_describe(CLI::App& cli, App& app) {
  auto* command = cli.add_subcommand(
      "describe", "a method's or generator's parameters, paper, an example; what a column of results means");
  auto name = std::make_shared<std::string>();
  command->add_option("NAME", *name, "method, generator, or column of results (a metric)")->required();
  command->callback([&app, name] { describe(*name, app.registry()); });
}

}  // namespace kvlab
