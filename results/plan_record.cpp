#include "results/plan_record.hpp"

#include "results/atomic.hpp"
#include "results/cbor.hpp"
#include "results/envelope.hpp"
#include "results/places.hpp"

namespace kvlab {
namespace {

using Json = nlohmann::json;

constexpr Seal plan_seal{"kvplan", 1};

const char* name_of(ColumnType type) {
  return type == ColumnType::real ? "real" : type == ColumnType::integer ? "integer" : "text";
}

ColumnType type_of(const std::string& name) {
  for (const ColumnType type : {ColumnType::real, ColumnType::integer, ColumnType::text}) {
    if (name == name_of(type)) return type;
  }
  throw DamagedError("it is damaged: there is no type " + name);
}

// Those that a cell has before it is measured: of the integers all, and what tells cells apart.
std::vector<ColumnSpec> planned_columns(const std::vector<ColumnSpec>& swept) {
  std::vector<ColumnSpec> columns = cell_columns();
  std::erase_if(columns, [](const ColumnSpec& spec) { return spec.type == ColumnType::real; });
  columns.insert(columns.end(), swept.begin(), swept.end());
  return columns;
}

}  // namespace

bool same_experiment(const PlanRecord& a, const PlanRecord& b) {
  return (!a.file.empty() && a.file == b.file) || a.source == b.source;
}

std::string plan_to_bytes(const PlanRecord& plan) {
  Json swept = Json::array();
  for (const ColumnSpec& spec : plan.swept) {
    swept.push_back({spec.name, name_of(spec.type), spec.unit, spec.description});
  }
  const Json whole{{"run", plan.run},         {"file", plan.file},
                   {"source", plan.source},   {"assignments", plan.assignments},
                   {"command", plan.command}, {"started", plan.started},
                   {"swept", swept},          {"rows", columns_of(plan.rows, planned_columns(plan.swept))}};
  std::string payload;
  Json::to_cbor(whole, payload);
  return seal(plan_seal, payload);
}

PlanRecord plan_from_bytes(std::string_view bytes) {
  const std::string_view payload = unseal(plan_seal, bytes);
  try {
    const Json whole = Json::from_cbor(payload.begin(), payload.end());
    PlanRecord plan;
    plan.run = whole.at("run").get<std::string>();
    plan.file = whole.at("file").get<std::string>();
    plan.source = whole.at("source").get<std::string>();
    plan.assignments = whole.at("assignments").get<std::vector<std::string>>();
    plan.command = whole.at("command").get<std::string>();
    plan.started = whole.at("started").get<std::string>();
    for (const Json& spec : whole.at("swept")) {
      plan.swept.push_back({spec.at(0).get<std::string>(), type_of(spec.at(1).get<std::string>()),
                            spec.at(2).get<std::string>(), spec.at(3).get<std::string>()});
    }
    plan.rows = rows_of(whole.at("rows"), planned_columns(plan.swept));
    return plan;
  } catch (const Json::exception& error) {
    throw DamagedError(std::string("it is damaged: ") + error.what());
  }
}

void write_plan(const std::filesystem::path& folder, const PlanRecord& plan) {
  write_atomically(plan_file(folder), plan_to_bytes(plan));
}

PlanRecord read_plan(const std::filesystem::path& folder) {
  const std::string place = plan_file(folder).string() + ": ";
  try {
    return plan_from_bytes(bytes_of_file(plan_file(folder)));
  } catch (const DamagedError& error) {
    throw DamagedError(place + error.what());
  } catch (const InputError& error) {
    throw InputError(place + error.what());
  }
}

}  // namespace kvlab
