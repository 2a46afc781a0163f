#include "experiments/config/experiment.hpp"

#include <algorithm>
#include <fstream>
#include <limits>

#include "core/base/file.hpp"
#include "core/base/nearest.hpp"
#include "experiments/config/reader.hpp"

namespace kvlab {
namespace {

constexpr std::int64_t largest_seed = std::numeric_limits<std::int64_t>::max() / 2;

std::vector<std::string> read_backends(const Node& node) {
  const std::vector<std::string> known{"cpu", "cuda"};
  std::vector<std::string> backends;
  for (const auto& item : require_list(node, "backends").items) {
    const std::string& name = scalar_of(item, "a backend");
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      refuse(item, "there is no backend '" + name + "'" + suggestion(name, known));
    }
    if (std::find(backends.begin(), backends.end(), name) != backends.end())
      refuse(item, "'" + name + "' stands here a second time");
    backends.push_back(name);
  }
  if (backends.empty()) refuse(node, "backends is an empty list; valid: cpu, cuda");
  return backends;
}

std::vector<Entry> read_labelled(const Node& node, const std::string& what) {
  require_map(node, what + "s");
  if (node.entries.empty()) refuse(node, "there are no " + what + "s, so the grid has no cells");
  for (const auto& [label, value] : node.entries) {
    Node key;
    key.place = value.key_place;
    check_label(key, label, "a " + what + "'s label");
    require_map(value, what + " '" + label + "'");
  }
  return node.entries;
}

Measure read_measure(const Node& node) {
  MapReader reader(node, "measure");
  Measure measure;
  measure.speed = reader.boolean("speed", measure.speed);
  measure.min_samples = reader.integer("min_samples", measure.min_samples, 3, 1'000'000);
  if (const Node* seconds = reader.optional("max_seconds")) {
    measure.max_seconds = real_of(*seconds, "max_seconds");
    if (measure.max_seconds <= 0) refuse(*seconds, "max_seconds is " + seconds->scalar + "; valid: above 0");
  }
  measure.plain = reader.boolean("plain", measure.plain);
  measure.threads = reader.integer("threads", measure.threads, 1, 1024);
  reader.finish();
  return measure;
}

Limits read_limits(const Node& node) {
  MapReader reader(node, "limits");
  Limits limits;
  if (const Node* seconds = reader.optional("seconds")) {
    limits.seconds = real_of(*seconds, "seconds");
    if (limits.seconds <= 0) refuse(*seconds, "seconds is " + seconds->scalar + "; valid: above 0");
  }
  if (const Node* memory = reader.optional("memory")) limits.memory = bytes_of(*memory, "memory");
  reader.finish();
  return limits;
}

// The whole file, read once: what is parsed is what the result keeps. It may be a pipe.
std::string text_of_file(const std::string& path) {
  constexpr std::size_t limit = std::size_t{16} << 20;
  require_file(path);
  std::ifstream file(path, std::ios::binary);
  std::string text(limit + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.empty()) throw InputError(path + ": it is empty");
  if (text.size() > limit) throw InputError(path + ": it is larger than 16 MiB");
  return text;
}

}  // namespace

Json to_json(const Measure& measure) {
  return {{"speed", measure.speed},
          {"min_samples", measure.min_samples},
          {"max_seconds", measure.max_seconds},
          {"plain", measure.plain},
          {"threads", measure.threads}};
}

Measure measure_of(const Json& json) {
  Measure measure;
  measure.speed = json.at("speed").get<bool>();
  measure.min_samples = json.at("min_samples").get<std::int64_t>();
  measure.max_seconds = json.at("max_seconds").get<double>();
  measure.plain = json.at("plain").get<bool>();
  measure.threads = json.at("threads").get<std::int64_t>();
  return measure;
}

Experiment load_experiment(const std::string& file, const std::vector<std::string>& assignments) {
  Experiment experiment;
  experiment.file = file;
  experiment.source = text_of_file(file);
  experiment.assignments = assignments;
  experiment.root = parse_yaml_file(experiment.source, file);
  require_map(experiment.root, "the experiment");
  for (const auto& assignment : assignments) apply_set(experiment.root, assignment);

  MapReader reader(experiment.root, "the experiment");
  integer_of(reader.required("kvlab"), "kvlab (the schema's version)", 1, 1);
  const Node& name = reader.required("name");
  experiment.name = scalar_of(name, "name");
  check_label(name, experiment.name, "the name");
  experiment.about = reader.text("about", "");
  experiment.seed = reader.integer("seed", 1, 0, largest_seed);
  experiment.repeats = reader.integer("repeats", 1, 1, 100'000);
  if (const Node* backends = reader.optional("backends")) experiment.backends = read_backends(*backends);
  experiment.workloads = read_labelled(reader.required("workloads"), "workload");
  experiment.pipelines = read_labelled(reader.required("pipelines"), "pipeline");
  if (const Node* exclude = reader.optional("exclude")) experiment.exclude = require_list(*exclude, "exclude").items;
  if (const Node* measure = reader.optional("measure")) experiment.measure = read_measure(*measure);
  if (const Node* limits = reader.optional("limits")) experiment.limits = read_limits(*limits);
  reader.finish();
  return experiment;
}

}  // namespace kvlab
