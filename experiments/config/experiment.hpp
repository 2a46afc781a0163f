// The experiment file, its top level read and checked; pipelines and workloads are still trees (experiments/plan).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "experiments/config/json.hpp"

namespace kvlab {

struct Measure {
  bool speed = true;
  std::int64_t min_samples = 10;
  double max_seconds = 2;
  bool plain = false;        // time plain scalar attention too
  std::int64_t threads = 0;  // 0: one per core
};

// As JSON, for a cell's id and its worker.
Json to_json(const Measure& measure);
Measure measure_of(const Json& json);

struct Limits {
  double seconds = 600;                 // a cell
  std::optional<std::uint64_t> memory;  // bytes per cell; absent: 80 % of the free memory over the jobs
};

struct Experiment {
  std::string file;                      // as it was named
  std::string source;                    // its text
  std::vector<std::string> assignments;  // each --set
  Node root;                             // with them applied
  std::string name;
  std::string about;
  std::int64_t seed = 1;
  std::int64_t repeats = 1;
  std::vector<std::string> backends{"cpu"};
  std::vector<Entry> workloads;
  std::vector<Entry> pipelines;
  std::vector<Node> exclude;
  Measure measure;
  Limits limits;
};

// Throws InputError.
Experiment load_experiment(const std::string& file, const std::vector<std::string>& assignments);

}  // namespace kvlab
