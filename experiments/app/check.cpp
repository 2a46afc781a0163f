#include <algorithm>
#include <iostream>

#include "core/base/error.hpp"
#include "core/base/nearest.hpp"
#include "core/base/text.hpp"
#include "core/conformance/conformance.hpp"
#include "experiments/app/commands.hpp"

namespace kvlab {
namespace {

namespace fs = std::filesystem;

struct CheckOptions {
  std::vector<std::string> plugins;
  std::vector<std::string> only;
  double seconds = 300;
};

// The names of those that were asked for.
std::vector<conformance::CheckInfo> chosen(MethodKind kind, const CheckOptions& options) {
  std::vector<conformance::CheckInfo> checks = conformance::checks_of(kind);
  if (options.only.empty()) return checks;
  std::erase_if(checks, [&](const auto& info) {
    return std::find(options.only.begin(), options.only.end(), info.name) == options.only.end();
  });
  return checks;
}

void refuse_unknown(const CheckOptions& options) {
  std::vector<std::string> names;
  for (const MethodKind kind : {MethodKind::codec, MethodKind::selector}) {
    for (const auto& info : conformance::checks_of(kind)) names.push_back(info.name);
  }
  for (const auto& name : options.only) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    throw InputError("--only: there is no check '" + name + "'" + suggestion(name, names));
  }
  if (!(options.seconds >= 1)) throw InputError("--seconds: valid: from 1");
}

// What fails is told at once. True where all is well.
bool check(const Method& method, const CheckOptions& options) {
  std::size_t failed = 0;
  const auto checks = chosen(method.kind, options);
  if (checks.empty()) {
    std::cout << method.id << ": none of these checks is for a " << name_of(method.kind) << '\n' << std::flush;
    return options.plugins.empty();
  }
  for (const auto& info : checks) {
    const conformance::Outcome outcome = conformance::check_method(method, info.name, options.seconds);
    if (outcome.ok) continue;
    ++failed;
    std::cout << printable(method.id + ": check '" + info.name + "' (" + info.question + ") failed: " + outcome.reason)
              << '\n'
              << std::flush;
  }
  std::cout << method.id << ": " << checks.size() << " checks, "
            << (failed == 0 ? "ok" : std::to_string(failed) + " failed") << '\n'
            << std::flush;
  return failed == 0;
}

// All that these libraries hold; one that is refused is a failure.
bool check_all(const Registry& registry, const CheckOptions& options) {
  bool ok = true;
  for (const auto& method : registry.methods()) {
    if (!method.optimized) std::cerr << "warning: " << printable(build_warning(method)) << '\n';
    ok = check(method, options) && ok;
  }
  for (const auto& candidate : registry.candidates()) {
    if (candidate.state != Registry::Candidate::State::refused) continue;
    std::cout << printable(candidate.path.string() + ": refused: " + candidate.reason) << '\n' << std::flush;
    ok = false;
  }
  return ok;
}

// What a word names: a file or folder where it looks like one, else a method. Throws InputError where that is nothing.
Registry found(const std::string& word, const App& app) {
  if (word.find('/') != std::string::npos || word.ends_with(".so")) {
    if (!fs::exists(word)) throw InputError(word + ": there is no such file");
    Registry registry = Registry::described({word});
    if (registry.candidates().empty()) throw InputError(word + ": it holds no library (*.so, */*.so)");
    return registry;
  }
  const Registry all = app.registry();
  const Method* method = all.find(word);
  for (const auto& candidate : all.candidates()) {
    const bool is_other = candidate.state != Registry::Candidate::State::loaded || candidate.id != word;
    if (!is_other || (candidate.path.stem() != word && candidate.id != word)) continue;
    const std::string what = candidate.path.string() + ": " +
                             (candidate.reason.empty() ? "its id is '" + candidate.id + "'" : candidate.reason);
    if (method == nullptr) throw InputError("check: there is no method '" + word + "'; " + what);
    std::cerr << "warning: not checked: " << message(what) << '\n';
  }
  if (method == nullptr) throw InputError("check: there is no method '" + word + "'" + suggestion(word, all.ids()));
  return Registry::described({method->path});
}

}  // namespace

void add_check(CLI::App& cli, App& app) {
  auto* command = cli.add_subcommand("check", "whether methods do what every method must (abi.h)");
  auto options = std::make_shared<CheckOptions>();
  command->add_option("PLUGIN", options->plugins, "methods by name, libraries or folders by path; default: all");
  command->add_option("--only", options->only, "this check alone; may be given several times")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  command->add_option("--seconds", options->seconds, "limit of a check, of a processor's time; default 300");
  command->callback([&app, options] {
    refuse_unknown(*options);
    std::vector<Registry> registries;  // of all words, before any work
    if (options->plugins.empty()) registries.push_back(app.registry());
    for (const auto& word : options->plugins) registries.push_back(found(word, app));
    for (const auto& registry : registries) {
      if (!check_all(registry, *options)) app.exit_code = 1;
    }
  });
}

}  // namespace kvlab
