// --only: which cells of the grid run.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvlab {

// Globs on a cell's name, pipeline/workload/backend; what is left out at a glob's end is any: "int8" is int8/*. With
// none every cell is taken, else those that one of them matches.
class Only {
 public:
  explicit Only(std::vector<std::string> globs) : globs_(std::move(globs)), used_(globs_.size()) {}

  bool takes(const std::string& name);
  // After all cells were seen: refuses a glob that none matched, with the nearest of these names (InputError).
  void check(std::span<const std::string> names) const;

 private:
  std::vector<std::string> globs_;
  std::vector<bool> used_;
};

}  // namespace kvlab
