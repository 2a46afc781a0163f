#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <kvlab/isa.hpp>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <iostream>

#include "core/base/error.hpp"
#include "core/base/nearest.hpp"
#include "core/base/text.hpp"
#include "core/version.hpp"
#include "experiments/app/commands.hpp"
#include "experiments/run/job.hpp"
#include "results/hdf5.hpp"

namespace kvlab {
namespace {

constexpr int refused = 2;

int refuse_line(const std::string& line) {
  std::cerr << "kvlab: " << message(line) << '\n';
  return refused;
}

// What to say of the first flag that neither the program nor the command has; "" where all are known.
std::string unknown_flag(const CLI::App& cli, int argc, char** argv) {
  std::vector<const CLI::App*> apps{&cli};
  for (const auto* command : cli.get_subcommands()) apps.push_back(command);
  std::vector<std::string> flags;
  for (const auto* app : apps) {
    for (const auto* option : app->get_options()) {
      if (!option->get_lnames().empty()) flags.push_back("--" + option->get_lnames().front());
    }
  }
  for (int i = 1; i < argc; ++i) {
    const std::string flag = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
    if (!flag.starts_with("--") || std::find(flags.begin(), flags.end(), flag) != flags.end()) continue;
    return "there is no flag '" + flag + "'" + suggestion(flag, flags);
  }
  return "";
}

// CLI11 says what is wrong; the nearest name is ours.
std::string explain(const CLI::App& cli, const CLI::ParseError& error, int argc, char** argv) {
  std::string line = error.what();
  for (auto& c : line) c = c == '\n' ? ' ' : c;  // it writes its own lines
  std::vector<std::string> names;
  for (const auto* command : cli.get_subcommands({})) {
    if (!command->get_group().empty()) names.push_back(command->get_name());
  }
  const std::string first = argc > 1 ? argv[1] : "-";
  if (first.front() != '-' && std::find(names.begin(), names.end(), first) == names.end()) {
    return "there is no command '" + first + "'" + suggestion(first, names);
  }
  const std::string wrong = unknown_flag(cli, argc, argv);
  if (!wrong.empty()) return wrong;
  return line + " (kvlab --help)";
}

int parse_and_run(CLI::App& cli, App& app, int argc, char** argv) {
  try {
    cli.parse(argc, argv);
    if (!std::cout.flush()) {
      std::cerr << "kvlab: the output cannot be written\n";
      return 1;
    }
    return app.exit_code;
  } catch (const CLI::CallForHelp& help) {
    return cli.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return cli.exit(help);
  } catch (const CLI::CallForVersion& shown) {
    return cli.exit(shown);
  } catch (const CLI::ParseError& error) {
    return refuse_line(explain(cli, error, argc, argv));
  }
}

// KVLAB_ISA must name an instruction set that this machine has: a kernel that it lacks would be a crash.
void check_isa() {
  const char* name = std::getenv("KVLAB_ISA");
  if (name == nullptr) return;
  std::vector<std::string> names;
  for (const Isa isa : all_isas) {
    if (has_isa(isa)) names.emplace_back(name_of(isa));
  }
  if (std::find(names.begin(), names.end(), name) != names.end()) return;
  const bool known = parse_isa(name).has_value();
  std::string valid;
  for (const auto& each : names) valid += (valid.empty() ? "" : ", ") + each;
  throw InputError(std::string("KVLAB_ISA is '") + name + "'" +
                   (known ? ", which this machine does not have" : suggestion(name, names)) + "; valid here: " + valid);
}

}  // namespace

int run_app(int argc, char** argv, const std::string& commit) {
  signal(SIGXFSZ, SIG_IGN);       // a file that may not grow further is told as a disk that is full is
  std::signal(SIGCHLD, SIG_DFL);  // where who started this ignores it, no child of this process would be told of
  h5::start();
  spdlog::set_default_logger(spdlog::stderr_color_mt("kvlab"));
  spdlog::set_pattern("%^%l%$: %v");
  App app;
  app.commit = commit;
  for (int i = 0; i < argc; ++i) app.command += (i > 0 ? " " : "") + std::string(i == 0 ? "kvlab" : argv[i]);

  CLI::App cli("kvlab, a laboratory for KV-cache compression", "kvlab");
  cli.require_subcommand(1);
  cli.set_version_flag("--version", std::string("kvlab ") + version + " (" + commit + ")");
  // One value per flag: the next word is the command's.
  cli.add_option("--plugins", app.plugins, "a folder or library searched for methods before all others; several times")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  cli.fallthrough();
  for (auto* add : {add_list, add_describe, add_check, add_new, add_plan, add_run, add_bench, add_show, add_trace})
    add(cli, app);
  cli.add_subcommand("__cell", "a worker: one cell, from standard input")->group("")->callback([&] {
    app.exit_code = run_worker();
  });
  try {
    check_isa();
    return parse_and_run(cli, app, argc, argv);
  } catch (const InputError& error) {
    return refuse_line(error.what());
  } catch (const std::exception& error) {
    std::cerr << "kvlab: " << message(error.what()) << '\n';
    return 1;
  }
}

}  // namespace kvlab
