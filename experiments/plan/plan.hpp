// An experiment expanded into its cells, each checked and with a stable id, before anything runs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/registry/registry.hpp"
#include "experiments/config/experiment.hpp"
#include "experiments/workloads/workload.hpp"
#include "results/table.hpp"

namespace kvlab {

struct Cell {
  std::string id;  // hash of all that decides the numbers; cells with equal ids are measured once
  std::string pipeline;
  std::string workload;
  std::string backend;
  std::int64_t repeat = 0;
  std::int64_t seed = 0;
  Json parameters;         // {"cache", "select", "codec", "workload"}: all that takes effect
  Json portable_workload;  // what a worker loads
  std::vector<const Method*> methods;
  WorkloadShape shape;
  std::uint64_t memory_bytes = 0;  // estimate of what its worker needs
  std::string settings;            // what tells it from cells of the same name: "codec.bits=4 repeat=1", or ""
  bool chosen = true;              // by --only: the others are in the plan and do not run

  // "pipeline/workload/backend", what --only matches.
  [[nodiscard]] std::string name() const { return pipeline + "/" + workload + "/" + backend; }
  // For people: the name, and the settings behind it.
  [[nodiscard]] std::string label() const { return settings.empty() ? name() : name() + " " + settings; }
  // K, V and queries: without these bytes it is not worth a start.
  [[nodiscard]] std::uint64_t input_bytes() const { return shape.raw_bytes() + shape.query_bytes(); }
  [[nodiscard]] bool runs_here() const { return backend == "cpu"; }
  // What is known before it runs: labels, parameters, sizes.
  [[nodiscard]] Row row() const;
};

struct Plan {
  std::vector<Cell> cells;
  std::vector<std::string> swept;  // paths that vary: each is a column of the result
};

// Throws InputError. `force` lifts the limit of 100,000 cells. `only`: a glob on Cell::name() for the
// cells to choose, "" chooses all; the plan is the whole grid either way.
Plan make_plan(const Experiment& experiment, const Registry& registry, bool force,
               const std::vector<std::string>& only);

// The swept parameters as columns, and a cell's values in them.
struct SweptColumn {
  ColumnSpec spec;
  std::string path;  // of the parameter
};
std::vector<SweptColumn> swept_columns(const Plan& plan);
void add_swept(const std::vector<SweptColumn>& columns, const Cell& cell, Row& row);

}  // namespace kvlab
