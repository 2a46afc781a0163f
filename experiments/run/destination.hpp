// Where a run writes, and that it may: locked for this process, the plan written, another experiment's result kept.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "experiments/run/runner.hpp"
#include "results/lock.hpp"
#include "results/plan_record.hpp"

namespace kvlab {

// The plan as its file has it, for one start of `experiment`.
PlanRecord record_of(const Experiment& experiment, const Plan& plan, const std::string& command);

struct Replacing {
  bool replace;  // also the result of another experiment
  bool whole;    // every cell of the plan will have a row
};

class Destination {
 public:
  // Throws InputError, and nothing is written, where another run writes there, or where rows would be lost without
  // `replace`: those of another experiment, or, of a result whose cells are gone, those that do not run now. Says on
  // stderr what the new plan leaves out. The lock is held as long as this lives.
  Destination(const std::filesystem::path& output, const PlanRecord& plan, const Replacing& how);

  [[nodiscard]] const std::filesystem::path& file() const { return file_; }      // the run file, links followed
  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }  // of its cells

 private:
  void refuse_another(const PlanRecord& plan, const Replacing& how);
  void refuse_unknown(const PlanRecord& plan, bool whole) const;
  void say_what_is_left_out(const PlanRecord& plan) const;

  std::filesystem::path file_;
  std::filesystem::path folder_;
  std::optional<PlanRecord> earlier_;
  std::string unreadable_;  // why the plan that is there cannot be read
  std::unique_ptr<OutputLock> lock_;
};

}  // namespace kvlab
