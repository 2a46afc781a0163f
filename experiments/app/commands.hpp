// The subcommands of kvlab. Each declares its flags on the app and returns its exit code through `exit_code` when it
// is the one that was asked for. Output for people goes to stderr, data to stdout.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/registry/registry.hpp"

namespace kvlab {

// What the commands share.
struct App {
  std::vector<std::filesystem::path> plugins;  // --plugins
  std::string command;                         // as it was typed
  std::string commit;
  int exit_code = 0;

  // Methods as their libraries describe themselves: no command loads one, workers do.
  [[nodiscard]] Registry registry() const { return Registry::described(plugin_search_path(plugins)); }
};

void add_check(CLI::App& cli, App& app);
void add_list(CLI::App& cli, App& app);
void add_describe(CLI::App& cli, App& app);
void add_new(CLI::App& cli, App& app);
void add_plan(CLI::App& cli, App& app);
void add_run(CLI::App& cli, App& app);
void add_bench(CLI::App& cli, App& app);
void add_show(CLI::App& cli, App& app);
void add_trace(CLI::App& cli, App& app);

// `text` with blanks up to `width`, and two more: a column.
inline std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text + "  ";
}

// JSON in ASCII, which moves no cursor either; bytes that are no UTF-8 become U+FFFD.
inline std::string json_text(const nlohmann::json& json) {
  return json.dump(2, ' ', true, nlohmann::json::error_handler_t::replace);
}

// The whole program.
int run_app(int argc, char** argv, const std::string& commit);

}  // namespace kvlab
