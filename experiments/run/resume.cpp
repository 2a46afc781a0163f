#include "experiments/run/resume.hpp"

#include <algorithm>
#include <iostream>
#include <set>

#include "core/base/text.hpp"
#include "results/finished.hpp"
#include "results/places.hpp"

namespace kvlab {
namespace {

// Under `now` where the limit that ended it was `before`; NaN, from a file that does not know it, does not count.
bool is_larger(double now, const Value& before) { return now >= std::get<double>(before) * 1.1 * (1 - 1e-9); }

bool has_more_room(const Row& row, const WorkerLimits& limits) {
  const auto& status = std::get<std::string>(row.at("status"));
  if (status == name_of(Status::timeout)) return is_larger(limits.seconds, row.at("limit_seconds"));
  if (status != name_of(Status::out_of_memory)) return false;
  return is_larger(static_cast<double>(limits.memory), row.at("limit_memory_bytes"));
}

// Files of kvlab before 1.0's cell format were HDF5, one per cell.
void say_old_cells(const std::filesystem::path& folder) {
  const auto count = std::count_if(std::filesystem::directory_iterator(folder), {},
                                   [](const auto& entry) { return entry.path().extension() == ".h5"; });
  if (count > 0) {
    std::cerr << count << " cells of an earlier kvlab (.h5) lie in " << printable(folder.string())
              << "; they are left, and not read\n";
  }
}

class Reader {
 public:
  Reader(const Plan& plan, const std::filesystem::path& folder, const ResumeOptions& options)
      : plan_(plan), folder_(folder), options_(options) {
    for (const auto& cell : plan_.cells) {
      if (!cell.runs_here()) continue;
      ids_.insert(cell.id);
      if (cell.chosen) chosen_.insert(cell.id);
    }
  }

  Resume read() {
    say_old_cells(folder_);
    finished_ = read_cells(folder_, ids_);
    std::set<std::string> seen;
    for (const auto& cell : plan_.cells) {
      if (cell.runs_here() && seen.insert(cell.id).second) decide(cell);
    }
    say();
    return std::move(resume_);
  }

 private:
  void decide(const Cell& cell) {
    const bool chosen = chosen_.contains(cell.id);
    const auto found = finished_.cells.find(cell.id);
    if (found != finished_.cells.end() && !(chosen && runs_again(found->second.cell))) {
      if (chosen && is_failure(std::get<std::string>(found->second.cell.at("status")))) ++failed_;
      resume_.known.insert(finished_.cells.extract(found));
      return;
    }
    const auto left = finished_.unreadable.find(cell.id);
    if (left != finished_.unreadable.end() && !(chosen && (options_.fresh || options_.retry))) {
      std::cerr << "left as it is: " << message(left->second) << '\n';
      resume_.known[cell.id] =
          unmeasured(cell.row(), Status::failed, message(left->second) + "; --retry sets it aside");
      if (chosen) ++unreadable_;
      return;
    }
    if (!chosen) return;
    if (left != finished_.unreadable.end()) put_aside(cell, left->second, "aside");
    if (const auto damaged = finished_.damaged.find(cell.id); damaged != finished_.damaged.end()) {
      put_aside(cell, damaged->second, "damaged");
    }
    resume_.pending.push_back(&cell);
  }

  bool runs_again(const Row& row) {
    if (options_.fresh) return true;
    if (options_.retry && is_failure(std::get<std::string>(row.at("status")))) return true;
    if (!has_more_room(row, options_.limits)) return false;
    ++roomier_;
    return true;
  }

  void put_aside(const Cell& cell, const std::string& why, const std::string& what) const {
    const auto aside = set_aside(cell_file(folder_, cell.id), what);
    std::cerr << "measured again: " << message(why) << "; it is now " << printable(aside.string()) << '\n';
  }

  void say() const {
    if (roomier_ > 0) std::cerr << "cells that a limit ended run again under a larger one: " << roomier_ << "\n";
    const std::size_t done = chosen_.size() - resume_.pending.size() - unreadable_;
    if (done == 0) return;
    std::cerr << done << " of " << chosen_.size() << " cells are done already";
    if (failed_ > 0) std::cerr << ", " << failed_ << " of them failed (--retry runs those again)";
    std::cerr << '\n';
  }

  const Plan& plan_;
  const std::filesystem::path& folder_;
  const ResumeOptions& options_;
  std::set<std::string> ids_;
  std::set<std::string> chosen_;
  Finished finished_;
  Resume resume_;
  std::size_t failed_ = 0;
  std::size_t unreadable_ = 0;
  std::size_t roomier_ = 0;
};

}  // namespace

Resume resume(const Plan& plan, const std::filesystem::path& folder, const ResumeOptions& options) {
  return Reader(plan, folder, options).read();
}

void set_too_large_apart(const Plan& plan, Resume& resume, const WorkerLimits& limits, std::uint64_t free_memory) {
  for (const Cell& cell : plan.cells) {
    const std::uint64_t inputs = cell.input_bytes();
    if (inputs <= std::min(limits.memory, free_memory) || !cell.runs_here() || resume.known.contains(cell.id)) continue;
    const std::string room = inputs > limits.memory ? "the limit is " + size_text(limits.memory)
                                                    : size_text(free_memory) + " of memory are free";
    CellRecord record =
        unmeasured(cell.row(), Status::out_of_memory, "K, V and queries alone are " + size_text(inputs) + "; " + room);
    record.cell["limit_memory_bytes"] = static_cast<double>(limits.memory);
    resume.known[cell.id] = std::move(record);
  }
  std::erase_if(resume.pending, [&](const Cell* cell) { return resume.known.contains(cell->id); });
}

}  // namespace kvlab
