// The experiment's `exclude`: each rule drops the cells that match all of its keys.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "experiments/config/node.hpp"

namespace kvlab {

struct Cell;

// Keys are pipeline, workload, backend, repeat, or the path of a parameter as it took effect, defaults included;
// a workload's begin with `workload.`. A value may be a list: any of them.
class Exclusion {
 public:
  explicit Exclusion(const std::vector<Node>& rules);

  bool drops(const Cell& cell);
  // After all cells were seen: refuses a key that none of them had, warns of a rule that dropped none and says why.
  void check_keys() const;

 private:
  bool matches(const Node& rule, const Cell& cell);
  [[nodiscard]] std::string why_unused(const Node& rule) const;

  const std::vector<Node>& rules_;
  std::vector<bool> used_;                              // the rule dropped a cell
  std::map<std::string, std::set<std::string>> known_;  // keys that some cell had, and their values
};

}  // namespace kvlab
