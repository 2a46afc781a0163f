#include <cstdlib>
#include <functional>
#include <iostream>
#include <optional>
#include <set>

#include "core/base/text.hpp"
#include "experiments/app/commands.hpp"
#include "experiments/run/runner.hpp"
#include "results/failures.hpp"
#include "results/finished.hpp"
#include "results/show.hpp"
#include "results/speed.hpp"
#include "results/store.hpp"

namespace kvlab {
namespace {

struct Options {
  std::string file;
  std::vector<std::string> assignments;
  std::vector<std::string> only;
  std::optional<std::string> output;
  std::int64_t jobs = 1;
  bool force = false;
  bool fresh = false;
  bool retry = false;
  bool replace = false;
  bool json = false;
  bool csv = false;
};

void add_experiment_options(CLI::App& command, Options& options) {
  command.add_option("FILE", options.file, "the experiment, YAML")->required(options.file.empty());
  // One value a flag: the next word is FILE's.
  command.add_option("--set", options.assignments, "set any value of the file: path=value")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  command
      .add_option("--only", options.only, "run cells whose pipeline/workload/backend matches this glob; several: any")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  command.add_flag("--force", options.force, "allow more than 100,000 cells");
}

void add_run_options(CLI::App& command, Options& options) {
  command.add_option("-o,--output", options.output, "the result file; default results/runs/NAME.h5");
  command.add_flag("--fresh", options.fresh, "run finished cells again too");
  command.add_flag("--retry", options.retry, "run failed cells again");
  command.add_flag("--replace", options.replace, "replace the result of another experiment");
}

// Of methods whose times will not be their own, and of libraries that are not used though they bear a method's name.
void warn_of_methods(const Plan& plan, const Registry& registry) {
  std::set<std::string> warnings;
  for (const auto& cell : plan.cells) {
    if (!cell.chosen) continue;
    for (const Method* method : cell.methods) {
      warnings.insert(build_warning(*method));
      for (const auto& candidate : registry.candidates()) {
        if (candidate.state != Registry::Candidate::State::shadowed || candidate.id != method->id) continue;
        warnings.insert(candidate.path.string() + " is not used: " + candidate.reason);
      }
    }
  }
  warnings.erase("");
  for (const auto& warning : warnings) std::cerr << "warning: " << printable(warning) << '\n';
}

std::filesystem::path output_of(const Options& options, const Experiment& experiment) {
  if (!options.output) return std::filesystem::path("results/runs") / (experiment.name + ".h5");
  if (std::filesystem::path(*options.output).extension() != ".h5") {
    throw InputError("-o '" + *options.output + "': a result's name ends in .h5");
  }
  return *options.output;
}

// `print`: what becomes of the finished table.
int run(const Options& options, const App& app, const std::function<void(const Table&)>& print) {
  constexpr std::int64_t most_jobs = 1024;
  if (options.jobs < 1 || options.jobs > most_jobs) {
    throw InputError("--jobs " + std::to_string(options.jobs) + ": valid: 1 .. " + std::to_string(most_jobs));
  }
  const Registry registry = app.registry();
  const Experiment experiment = load_experiment(options.file, options.assignments);
  const Plan plan = make_plan(experiment, registry, options.force, options.only);
  warn_of_methods(plan, registry);
  const std::filesystem::path output = output_of(options, experiment);
  RunOptions how;
  how.output = output;
  how.jobs = static_cast<std::size_t>(options.jobs);
  how.fresh = options.fresh;
  how.retry = options.retry;
  how.replace = options.replace;
  how.command = app.command;
  how.commit = app.commit;
  const int code = run_plan(experiment, plan, how);
  if (code == 130) return code;
  const Table cells = read_run(output);
  print(cells);
  std::cerr << failures_of(cells) << "written: " << printable(output.string()) << '\n';
  return code;
}

void print_plan(const Plan& plan, const Limits& limits, bool as_json) {
  Json cells = Json::array();
  std::uint64_t most = 0;
  std::size_t chosen = 0;
  std::size_t too_large = 0;
  for (const auto& cell : plan.cells) {
    if (!cell.chosen) continue;
    ++chosen;
    most = std::max(most, cell.memory_bytes);
    if (limits.memory && cell.input_bytes() > *limits.memory) ++too_large;
    if (as_json) {
      cells.push_back({{"id", cell.id},
                       {"pipeline", cell.pipeline},
                       {"workload", cell.workload},
                       {"backend", cell.backend},
                       {"repeat", cell.repeat},
                       {"seed", cell.seed},
                       {"memory_bytes", cell.memory_bytes},
                       {"parameters", cell.parameters}});
    } else {
      std::cout << cell.id << "  " << cell.label() << "  about " << size_text(cell.memory_bytes) << '\n';
    }
  }
  if (as_json) std::cout << json_text(cells) << '\n';
  std::cerr << chosen << " cells; the largest needs about " << size_text(most) << '\n';
  if (too_large > 0) {
    std::cerr << "K, V and queries alone are above limits.memory (" << size_text(*limits.memory) << ") in " << too_large
              << " of them: those will be rows of status out_of_memory\n";
  }
}

}  // namespace

void add_run(CLI::App& cli, App& app) {
  auto* command = cli.add_subcommand("run", "run what is not yet done of an experiment");
  auto options = std::make_shared<Options>();
  add_experiment_options(*command, *options);
  add_run_options(*command, *options);
  command->add_option("--jobs", options->jobs, "cells side by side; their timed sections take turns");
  command->callback(
      [&app, options] { app.exit_code = run(*options, app, [](const Table& cells) { show(cells, {}, std::cout); }); });
}

// The root of the checkout, which the script says; else where an installed kvlab has its files.
std::filesystem::path own_files() {
  if (const char* root = std::getenv("KVLAB_ROOT"); root != nullptr) return root;
  const auto installed = std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "share/kvlab";
  return std::filesystem::exists(installed) ? installed : std::filesystem::path(".");
}

// A run like any other, of configs/bench.yaml unless another is named, and another table.
void add_bench(CLI::App& cli, App& app) {
  auto* command = cli.add_subcommand("bench", "the benchmarks: run configs/bench.yaml, speeds against the roofline");
  auto options = std::make_shared<Options>();
  options->file = (own_files() / "configs" / "bench.yaml").string();
  add_experiment_options(*command, *options);
  add_run_options(*command, *options);
  command->add_flag("--csv", options->csv, "the table as CSV");
  command->callback([&app, options] {
    app.exit_code = run(*options, app, [&](const Table& cells) { show_speeds(cells, options->csv, std::cout); });
  });
}

void add_plan(CLI::App& cli, App& app) {
  auto* command = cli.add_subcommand("plan", "the cells that would run; nothing runs");
  auto options = std::make_shared<Options>();
  add_experiment_options(*command, *options);
  command->add_flag("--json", options->json, "as JSON");
  command->callback([&app, options] {
    const Experiment experiment = load_experiment(options->file, options->assignments);
    const Registry registry = app.registry();
    const Plan plan = make_plan(experiment, registry, options->force, options->only);
    warn_of_methods(plan, registry);
    print_plan(plan, experiment.limits, options->json);
  });
}

void add_show(CLI::App& cli, App& /*app*/) {
  auto* command = cli.add_subcommand("show", "a result as a table");
  auto file = std::make_shared<std::string>();
  auto options = std::make_shared<ShowOptions>();
  command->add_option("RESULT", *file, "a result file")->required();
  command->add_option("--sort", options->sort, "by this column; -COL descends");
  command->add_option("--columns", options->columns, "these columns, comma-separated")->delimiter(',');
  command->add_flag("--csv", options->csv, "all columns, or those named, as CSV, one row per cell");
  command->add_flag("--rows", options->rows, "a row per cell: repeats are not taken together");
  command->callback([file, options] {
    std::string note;
    show(read_result(*file, note), *options, std::cout);
    if (!note.empty()) std::cerr << message(note) << '\n';
  });
}

}  // namespace kvlab
