// All methods that the search path holds, and what became of each library there.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/registry/library.hpp"

namespace kvlab {

// The methods of the installed kvlab that a program is built with: find_package(kvlab COMPONENTS core) defines it.
#if !defined(KVLAB_INSTALLED_METHODS)
#define KVLAB_INSTALLED_METHODS ""
#endif

// Where plugins are looked for, in order: `first` (the flag --plugins), KVLAB_PLUGIN_PATH (colon-separated), methods/
// beside the executable, ../lib/kvlab/methods from it (an installed kvlab), `last`. An entry is a folder or one
// library.
std::vector<std::filesystem::path> plugin_search_path(const std::vector<std::filesystem::path>& first = {},
                                                      const std::filesystem::path& last = KVLAB_INSTALLED_METHODS);

class Registry {
 public:
  struct Candidate {
    std::filesystem::path path;
    enum class State { loaded, refused, shadowed } state;
    std::string id;      // where it is known
    std::string reason;  // why it was refused, or what shadows it
  };

  // Each *.so and */*.so of each entry, described in a child process and then loaded here. Refusals are kept, not
  // thrown.
  explicit Registry(const std::vector<std::filesystem::path>& search_path);

  // Likewise, and nothing is loaded: no code of a library runs in this process, and its methods make no instances.
  static Registry described(const std::vector<std::filesystem::path>& search_path);

  struct Library {
    std::filesystem::path path;
    std::string hash;  // of Method::hash
  };
  // These libraries, loaded without a child: for a worker, whose starter has described them. Throws InputError, also
  // for one whose bytes are not those that were described.
  static Registry trusted(const std::vector<Library>& libraries);

  // Null when there is none.
  [[nodiscard]] const Method* find(std::string_view id) const;
  [[nodiscard]] const std::vector<Method>& methods() const { return methods_; }  // by id
  [[nodiscard]] const std::vector<Candidate>& candidates() const { return candidates_; }
  [[nodiscard]] const std::vector<std::filesystem::path>& searched() const { return searched_; }
  [[nodiscard]] std::vector<std::string> ids(std::optional<MethodKind> kind = {}) const;

 private:
  Registry() = default;
  void search(const std::vector<std::filesystem::path>& search_path, bool load);
  void consider(const std::filesystem::path& library, bool load);

  std::vector<Method> methods_;
  std::vector<Candidate> candidates_;
  std::vector<std::filesystem::path> searched_;
};

}  // namespace kvlab
