#include "experiments/plan/plan.hpp"

#include <kvlab/isa.hpp>

#include <filesystem>
#include <set>

#include "core/base/hash.hpp"
#include "core/base/nearest.hpp"
#include "core/version.hpp"
#include "experiments/plan/exclude.hpp"
#include "experiments/plan/only.hpp"
#include "experiments/plan/resolve.hpp"
#include "experiments/plan/sweep.hpp"

namespace kvlab {
namespace {

constexpr std::size_t most_cells = 100'000;

struct PipelineVariant {
  std::string label;
  ResolvedPipeline resolved;
  Node tree;
};

struct WorkloadVariant {
  std::string label;
  std::unique_ptr<WorkloadSource> source;
};

class Planner {
 public:
  Planner(const Experiment& experiment, const Registry& registry, bool force)
      : experiment_(experiment), registry_(registry), most_(force ? 0 : most_cells) {}

  Plan plan(Only only) {
    expand_pipelines();
    expand_workloads();
    check_count();
    Exclusion exclusion(experiment_.exclude);
    for (const auto& workload : workloads_) {
      for (const auto& pipeline : pipelines_) {
        for (const auto& backend : experiment_.backends) {
          for (std::int64_t repeat = 0; repeat < experiment_.repeats; ++repeat) {
            Cell cell = make_cell(pipeline, workload, backend, repeat);
            if (exclusion.drops(cell)) continue;
            cell.chosen = only.takes(cell.name());
            plan_.cells.push_back(std::move(cell));
          }
        }
      }
    }
    if (plan_.cells.empty()) refuse(experiment_.root, "the grid has no cells: exclude drops them all");
    only.check(names());
    exclusion.check_keys();
    for (Cell& cell : plan_.cells) cell.settings = settings_of(cell);
    return std::move(plan_);
  }

 private:
  // Pipelines, and whole names.
  [[nodiscard]] std::vector<std::string> names() const {
    std::set<std::string> names;
    for (const Cell& cell : plan_.cells) names.insert({cell.pipeline, cell.name()});
    return {names.begin(), names.end()};
  }

  // What the grid varies, as it is in this cell.
  [[nodiscard]] std::string settings_of(const Cell& cell) const {
    std::vector<std::string> settings;
    for (const auto& path : plan_.swept) {
      const Json* value = find_json(cell.parameters, path);
      if (value == nullptr) continue;
      settings.push_back(path + "=" + (value->is_string() ? value->get<std::string>() : value->dump()));
    }
    if (experiment_.repeats > 1) settings.push_back("repeat=" + std::to_string(cell.repeat));
    return join(settings, " ");
  }

  void remember_swept(const std::vector<std::string>& paths, const std::string& prefix) {
    for (const auto& path : paths) {
      const std::string name = prefix + path;
      if (std::find(plan_.swept.begin(), plan_.swept.end(), name) == plan_.swept.end()) plan_.swept.push_back(name);
    }
  }

  void expand_pipelines() {
    for (const auto& [label, tree] : experiment_.pipelines) {
      const std::string what = "pipeline '" + label + "'";
      for (auto& variant : expand(tree, what, most_)) {
        ResolvedPipeline resolved = resolve_pipeline(variant.tree, what, registry_);
        remember_swept(variant.swept, "");
        pipelines_.push_back({label, std::move(resolved), std::move(variant.tree)});
      }
    }
  }

  void expand_workloads() {
    const std::string folder = std::filesystem::path(experiment_.file).parent_path().string();
    for (const auto& [label, tree] : experiment_.workloads) {
      const std::string what = "workload '" + label + "'";
      for (auto& variant : expand(tree, what, most_)) {
        workloads_.push_back({label, resolve_workload(variant.tree, what, folder)});
        remember_swept(variant.swept, "workload.");
      }
    }
  }

  void check_count() const {
    const double count = static_cast<double>(pipelines_.size()) * static_cast<double>(workloads_.size()) *
                         static_cast<double>(experiment_.backends.size()) * static_cast<double>(experiment_.repeats);
    if (most_ != 0 && count > static_cast<double>(most_)) {
      refuse(experiment_.root, "the grid has " + std::to_string(static_cast<std::uint64_t>(count)) +
                                   " cells, more than " + std::to_string(most_) + "; --force runs them all the same");
    }
  }

  Cell make_cell(const PipelineVariant& pipeline, const WorkloadVariant& workload, const std::string& backend,
                 std::int64_t repeat) {
    Cell cell;
    cell.pipeline = pipeline.label;
    cell.workload = workload.label;
    cell.backend = backend;
    cell.repeat = repeat;
    cell.seed = experiment_.seed + repeat;
    cell.parameters = pipeline.resolved.effective;
    cell.parameters["workload"] = workload.source->effective();
    cell.portable_workload = workload.source->portable();
    cell.methods = pipeline.resolved.methods;
    cell.shape = workload.source->shape();
    check_budgets(pipeline, workload);
    cell.memory_bytes = estimate(cell.shape);
    cell.id = identify(cell, *workload.source);
    return cell;
  }

  static void check_budgets(const PipelineVariant& pipeline, const WorkloadVariant& workload) {
    try {
      static_cast<void>(pipeline.resolved.pipeline.kept_of(workload.source->shape().tokens));
    } catch (const InputError& error) {
      const Node* select = pipeline.tree.find("select");
      refuse(select != nullptr ? *select : pipeline.tree,
             "pipeline '" + pipeline.label + "' with workload '" + workload.label + "': " + error.what());
    }
  }

  // K and V, the largest cache (raw), what decompressing writes, queries and two sets of outputs.
  static std::uint64_t estimate(const WorkloadShape& shape) {
    constexpr std::uint64_t program = std::uint64_t{64} << 20;
    return program + 3 * shape.raw_bytes() + 2 * shape.query_bytes();
  }

  std::string identify(const Cell& cell, const WorkloadSource& workload) {
    Json identity;
    identity["kvlab"] = {version, results_epoch};
    identity["isa"] = name_of(chosen_isa());
    identity["parameters"] = cell.parameters;
    if (cell.parameters["workload"].contains("trace")) identity["parameters"]["workload"]["trace"] = "";
    identity["workload"] = workload.identity();
    identity["methods"] = Json::array();
    for (const Method* method : cell.methods) {
      identity["methods"].push_back({method->id, method->version, method->hash});
    }
    identity["cell"] = {cell.backend, cell.repeat, cell.seed};
    identity["measure"] = to_json(experiment_.measure);
    return hash_of(identity.dump());
  }

  const Experiment& experiment_;
  const Registry& registry_;
  std::size_t most_;
  std::vector<PipelineVariant> pipelines_;
  std::vector<WorkloadVariant> workloads_;
  Plan plan_;
};

Value to_value(const Json& json) {
  if (json.is_boolean()) return json.get<bool>() ? 1.0 : 0.0;
  if (json.is_number()) return json.get<double>();
  return json.is_string() ? json.get<std::string>() : json.dump();
}

// How what ran was built: its speed depends on it.
Json describe_methods(const std::vector<const Method*>& methods) {
  Json all = Json::array();
  for (const Method* method : methods) {
    Json one{{"method", method->id},
             {"version", method->version},
             {"library", method->hash},
             {"compiler", method->compiler},
             {"optimized", method->optimized}};
    if (std::find(all.begin(), all.end(), one) == all.end()) all.push_back(std::move(one));
  }
  return all;
}

}  // namespace

Row Cell::row() const {
  const auto count = [](std::uint64_t value) { return static_cast<std::int64_t>(value); };
  return {{"id", id},
          {"pipeline", pipeline},
          {"workload", workload},
          {"backend", backend},
          {"repeat", repeat},
          {"seed", seed},
          {"parameters", parameters.dump()},
          {"methods", describe_methods(methods).dump()},
          {"isa", std::string(name_of(chosen_isa()))},
          {"batch", count(shape.batch)},
          {"layers", count(shape.layers)},
          {"kv_heads", count(shape.kv_heads)},
          {"query_heads", count(shape.query_heads)},
          {"head_dim", count(shape.head_dim)},
          {"tokens", count(shape.tokens)},
          {"decoded_tokens", count(shape.decoded)},
          {"elements", count(shape.elements())},
          {"raw_bytes", count(shape.raw_bytes())}};
}

Plan make_plan(const Experiment& experiment, const Registry& registry, bool force,
               const std::vector<std::string>& only) {
  return Planner(experiment, registry, force).plan(Only(only));
}

std::vector<SweptColumn> swept_columns(const Plan& plan) {
  std::vector<SweptColumn> columns;
  for (const auto& path : plan.swept) {
    bool numeric = true;
    for (const auto& cell : plan.cells) {
      const Json* value = find_json(cell.parameters, path);
      numeric = numeric && (value == nullptr || std::holds_alternative<double>(to_value(*value)));
    }
    // A name with a dot cannot be that of another column.
    const std::string name = path.find('.') == std::string::npos ? "pipeline." + path : path;
    columns.push_back(
        {{name, numeric ? ColumnType::real : ColumnType::text, numeric ? "1" : "", "swept: " + path}, path});
  }
  return columns;
}

void add_swept(const std::vector<SweptColumn>& columns, const Cell& cell, Row& row) {
  for (const auto& column : columns) {
    const Json* json = find_json(cell.parameters, column.path);
    if (json == nullptr) continue;
    Value value = to_value(*json);
    if (column.spec.type == ColumnType::text && std::holds_alternative<double>(value)) value = json->dump();
    row[column.spec.name] = std::move(value);
  }
}

}  // namespace kvlab
