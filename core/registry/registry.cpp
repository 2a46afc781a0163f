#include "core/registry/registry.hpp"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "core/base/error.hpp"
#include "core/registry/description.hpp"

namespace kvlab {
namespace {

namespace fs = std::filesystem;

void libraries_in(const fs::path& folder, bool below, std::vector<fs::path>& out) {
  std::error_code ignored;
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder, fs::directory_options::skip_permission_denied, ignored)) {
    entries.push_back(entry.path());
  }
  std::sort(entries.begin(), entries.end());
  for (const auto& entry : entries) {
    if (fs::is_directory(entry, ignored)) {
      if (below) libraries_in(entry, false, out);
    } else if (entry.extension() == ".so") {
      out.push_back(entry);
    }
  }
}

}  // namespace

std::vector<fs::path> plugin_search_path(const std::vector<fs::path>& first, const fs::path& last) {
  for (const auto& entry : first) {
    if (!fs::exists(entry)) throw InputError("--plugins " + entry.string() + ": there is no such file or folder");
  }
  std::vector<fs::path> path = first;
  if (const char* variable = std::getenv("KVLAB_PLUGIN_PATH"); variable != nullptr) {
    std::istringstream entries(variable);
    for (std::string entry; std::getline(entries, entry, ':');) {
      if (entry.empty()) continue;
      if (!fs::exists(entry)) throw InputError("KVLAB_PLUGIN_PATH: " + entry + ": there is no such file or folder");
      path.emplace_back(entry);
    }
  }
  const fs::path home = fs::read_symlink("/proc/self/exe").parent_path();
  path.push_back(home / "methods");
  path.push_back(home.parent_path() / "lib/kvlab/methods");
  if (!last.empty()) path.push_back(last);
  return path;
}

Registry::Registry(const std::vector<fs::path>& search_path) { search(search_path, true); }

Registry Registry::described(const std::vector<fs::path>& search_path) {
  Registry registry;
  registry.search(search_path, false);
  return registry;
}

Registry Registry::trusted(const std::vector<Library>& libraries) {
  Registry registry;
  for (const auto& library : libraries) {
    registry.methods_.push_back(load_library(library.path));
    if (registry.methods_.back().hash != library.hash) {
      throw InputError(library.path.string() +
                       ": it has changed since this run began; a new start measures what it is now");
    }
  }
  return registry;
}

void Registry::search(const std::vector<fs::path>& search_path, bool load) {
  std::error_code ignored;
  searched_ = search_path;
  for (const auto& entry : search_path) {
    std::vector<fs::path> libraries;
    if (fs::is_directory(entry, ignored)) {
      libraries_in(entry, true, libraries);
    } else if (fs::exists(entry, ignored)) {
      libraries.push_back(entry);
    }
    for (const auto& library : libraries) consider(fs::absolute(library), load);
  }
  std::sort(methods_.begin(), methods_.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
}

void Registry::consider(const fs::path& library, bool load) {
  const auto same = [&](const Candidate& other) { return other.path == library; };
  if (std::any_of(candidates_.begin(), candidates_.end(), same)) return;
  try {
    Method method = describe_library(library);
    const std::string id = method.id;
    const auto taken = std::find_if(methods_.begin(), methods_.end(), [&](const auto& m) { return m.id == id; });
    if (taken != methods_.end()) {
      candidates_.push_back(
          {library, Candidate::State::shadowed, id, "'" + id + "' is the method of " + taken->path.string()});
      return;
    }
    methods_.push_back(load ? load_library(library) : std::move(method));
    candidates_.push_back({library, Candidate::State::loaded, id, ""});
  } catch (const InputError& error) {
    candidates_.push_back({library, Candidate::State::refused, "", error.what()});
  }
}

const Method* Registry::find(std::string_view id) const {
  const auto found = std::find_if(methods_.begin(), methods_.end(), [&](const auto& m) { return m.id == id; });
  return found == methods_.end() ? nullptr : &*found;
}

std::vector<std::string> Registry::ids(std::optional<MethodKind> kind) const {
  std::vector<std::string> ids;
  for (const auto& method : methods_) {
    if (!kind || method.kind == *kind) ids.push_back(method.id);
  }
  return ids;
}

}  // namespace kvlab
