#include "experiments/run/job.hpp"

#include <cmath>
#include <limits>

namespace kvlab {
namespace {

// JSON has no NaN.
Json number(double value) { return std::isnan(value) ? Json() : Json(value); }
double number(const Json& json) {
  return json.is_null() ? std::numeric_limits<double>::quiet_NaN() : json.get<double>();
}

}  // namespace

std::string to_text(const Job& job) {
  Json row = Json::object();
  for (const auto& [name, value] : job.row) {
    std::visit([&, &key = name](const auto& v) { row[key] = v; }, value);
  }
  Json plugins = Json::array();
  for (const auto& plugin : job.plugins) plugins.push_back({plugin.path.string(), plugin.hash});
  return Json{{"row", row},
              {"parameters", job.parameters},
              {"workload", job.workload},
              {"plugins", plugins},
              {"seed", job.seed},
              {"measure", to_json(job.measure)},
              {"peak_read", number(job.peak_read)},
              {"peak_copy", number(job.peak_copy)},
              {"timing_fd", job.timing_fd},
              {"parent", job.parent}}
      .dump();
}

Job parse_job(const std::string& text) {
  const Json json = Json::parse(text);
  Job job;
  for (const auto& [name, value] : json.at("row").items()) {
    job.row[name] = value.is_string() ? Value(value.get<std::string>()) : Value(value.get<std::int64_t>());
  }
  job.parameters = json.at("parameters");
  job.workload = json.at("workload");
  for (const auto& plugin : json.at("plugins")) {
    job.plugins.push_back({plugin.at(0).get<std::string>(), plugin.at(1).get<std::string>()});
  }
  job.seed = json.at("seed").get<std::int64_t>();
  job.measure = measure_of(json.at("measure"));
  job.peak_read = number(json.at("peak_read"));
  job.peak_copy = number(json.at("peak_copy"));
  job.timing_fd = json.at("timing_fd").get<int>();
  job.parent = json.at("parent").get<std::int64_t>();
  return job;
}

}  // namespace kvlab
