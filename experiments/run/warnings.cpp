#include "experiments/run/warnings.hpp"

#include <set>
#include <sstream>

namespace kvlab {

// The lines are those that the host writes for a method: "warning: METHOD: text".
void Warnings::add(const Cell& cell, const std::string& log) {
  if (log.empty()) return;
  std::set<std::string> ids;
  for (const Method* method : cell.methods) ids.insert(method->id);
  for (const std::string& id : ids) {
    std::istringstream lines(log);
    std::size_t count = 0;
    for (std::string line; std::getline(lines, line);) {
      for (const std::string level : {"warning: ", "error: "}) {
        const std::string start = level + id + ": ";
        if (!line.starts_with(start)) continue;
        ++count;
        methods_[id].last = line.substr(start.size());
      }
    }
    if (count == 0) continue;
    methods_[id].lines += count;
    ++methods_[id].cells;
  }
}

void Warnings::print(std::ostream& out) const {
  for (const auto& [id, said] : methods_) {
    out << "warning: " << id << " warned " << said.lines << (said.lines == 1 ? " time in " : " times in ") << said.cells
        << (said.cells == 1 ? " cell" : " cells") << " (column `log`), the last time: " << said.last << '\n';
  }
}

}  // namespace kvlab
