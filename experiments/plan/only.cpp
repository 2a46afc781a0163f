#include "experiments/plan/only.hpp"

#include <fnmatch.h>

#include "core/base/error.hpp"
#include "core/base/nearest.hpp"

namespace kvlab {

bool Only::takes(const std::string& name) {
  bool taken = globs_.empty();
  for (std::size_t i = 0; i < globs_.size(); ++i) {
    if (fnmatch(globs_[i].c_str(), name.c_str(), 0) != 0 && fnmatch((globs_[i] + "/*").c_str(), name.c_str(), 0) != 0) {
      continue;
    }
    used_[i] = true;
    taken = true;
  }
  return taken;
}

void Only::check(std::span<const std::string> names) const {
  for (std::size_t i = 0; i < globs_.size(); ++i) {
    if (used_[i]) continue;
    throw InputError("--only " + globs_[i] + ": it matches no cell; they are named pipeline/workload/backend" +
                     suggestion(globs_[i], names));
  }
}

}  // namespace kvlab
