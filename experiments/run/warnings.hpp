// What methods warned of while their cells ran: a line for each method, at the end of a run.
#pragma once

#include <map>
#include <ostream>
#include <string>

#include "experiments/plan/plan.hpp"

namespace kvlab {

class Warnings {
 public:
  void add(const Cell& cell, const std::string& log);  // the cell's column `log`
  void print(std::ostream& out) const;

 private:
  struct Said {
    std::size_t lines = 0;
    std::size_t cells = 0;
    std::string last;
  };
  std::map<std::string, Said> methods_;
};

}  // namespace kvlab
