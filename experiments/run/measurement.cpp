#include "experiments/run/measurement.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "core/cache/manager.hpp"
#include "experiments/measure/machine.hpp"
#include "experiments/measure/plain.hpp"
#include "experiments/measure/sampler.hpp"
#include "experiments/measure/turn.hpp"
#include "experiments/metrics/quality.hpp"
#include "experiments/metrics/reference.hpp"
#include "experiments/metrics/rungs.hpp"
#include "experiments/plan/resolve.hpp"
#include "experiments/run/decoding.hpp"
#include "experiments/workloads/synthetic/random.hpp"

namespace kvlab {
namespace {

double to_double(std::uint64_t value) { return static_cast<double>(value); }

class Measurement {
 public:
  Measurement(const Job& job, Backend& backend, CellRecord& record) : job_(job), backend_(backend), record_(record) {}

  void run() {
    load();
    build();
    if (job_.measure.speed) record_compression();
    fill();
    record_bytes();
    record_rungs();
    record_quality();
    if (job_.measure.speed) record_speed();
    // VmHWM is of whole pages and may lag: never below nothing.
    const std::uint64_t peak = std::max(peak_resident_bytes(), before_bytes_);
    record_.cell["peak_bytes"] = to_double(peak - before_bytes_);
  }

 private:
  void load();
  void build();
  void prefill();
  void fill();
  void record_compression();
  void record_decoding(const Decoding& decoding);
  void record_samples(const char* metric, std::vector<double> samples);
  void record_bytes();
  void record_rungs();
  void record_quality();
  void record_speed();
  void time(const char* metric, const std::function<void()>& call);

  const Job& job_;
  Backend& backend_;
  CellRecord& record_;
  std::optional<Registry> registry_;  // the cache's methods are its
  Workload workload_;
  std::vector<std::vector<float>> references_;  // a layer
  Pipeline pipeline_;
  std::optional<CacheManager> cache_;
  std::vector<std::vector<float>> outputs_;  // a layer: the cache's, of the judged queries
  std::uint64_t before_bytes_ = 0;           // resident, with workload and references
};

void Measurement::load() {
  const auto source = resolve_workload(to_node(job_.workload, "the workload"), "the workload", "", true);
  workload_ = source->load(static_cast<std::uint64_t>(job_.seed), backend_);
  check_finite(workload_, backend_);
  for (const auto& layer : workload_.layers) references_.push_back(reference_outputs(layer, backend_));
  before_bytes_ = resident_bytes();
  reset_peak_resident();
}

void Measurement::build() {
  registry_ = Registry::trusted(job_.plugins);
  Json pipeline = job_.parameters;
  pipeline.erase("workload");
  if (pipeline["codec"].empty()) pipeline.erase("codec");
  const ResolvedPipeline resolved = resolve_pipeline(to_node(pipeline, "the pipeline"), "the pipeline", *registry_);
  pipeline_ = resolved.pipeline;
  std::vector<LayerShape> shapes;
  for (const auto& layer : workload_.layers) shapes.push_back(layer.shape);
  const WorkloadLayer& first = workload_.layers.front();
  cache_.emplace(resolved.pipeline, shapes, backend_, CacheOptions{.decodes = first.decodes()});
}

void Measurement::prefill() {
  for (std::size_t i = 0; i < cache_->layers(); ++i) cache_->prefill(i, workload_.layers[i].prefill());
}

// The cache as it is judged, and what it answers.
void Measurement::fill() {
  prefill();
  if (workload_.layers.front().decodes()) {
    const TimingTurn turn(job_.measure.speed ? job_.timing_fd : -1);
    Decoding decoding = decode_tokens(workload_, *cache_, static_cast<std::uint64_t>(job_.seed));
    record_decoding(decoding);
    outputs_ = std::move(decoding.outputs);
    return;
  }
  for (std::size_t i = 0; i < cache_->layers(); ++i) {
    outputs_.push_back(cache_outputs(workload_.layers[i], cache_->layer(i)));
  }
}

void Measurement::record_decoding(const Decoding& decoding) {
  record_.cell["peak_cache_bytes"] = to_double(decoding.peak_bytes);
  if (!job_.measure.speed) return;
  record_samples("append", decoding.append_seconds);
  record_samples("step", decoding.step_seconds);
  for (const auto& [name, seconds] :
       {std::pair{"append_seconds", &decoding.append_seconds}, std::pair{"step_seconds", &decoding.step_seconds}}) {
    std::vector<double> sorted = *seconds;
    std::sort(sorted.begin(), sorted.end());
    record_.cell[std::string(name) + "_mean"] =
        std::accumulate(sorted.begin(), sorted.end(), 0.0) / to_double(sorted.size());
    record_.cell[std::string(name) + "_p99"] = quantile(sorted, 0.99);
    record_.cell[std::string(name) + "_max"] = sorted.back();
  }
}

void Measurement::record_bytes() {
  const Bytes bytes = cache_->bytes();
  const double elements = static_cast<double>(std::get<std::int64_t>(job_.row.at("elements")));
  const double raw = static_cast<double>(std::get<std::int64_t>(job_.row.at("raw_bytes")));
  // The arena's, and the codecs' state beside it: the bases that are in no layer's blocks.
  std::uint64_t reserved = cache_->reserved_bytes() + bytes.bases;
  for (std::size_t i = 0; i < cache_->layers(); ++i) reserved -= cache_->layer(i).bytes().bases;
  Row& cell = record_.cell;
  cell["bytes"] = to_double(bytes.total());
  cell["payload_bytes"] = to_double(bytes.payload);
  cell["scale_bytes"] = to_double(bytes.scales);
  cell["index_bytes"] = to_double(bytes.indices);
  cell["basis_bytes"] = to_double(bytes.bases);
  cell["uncompressed_bytes"] = to_double(bytes.uncompressed);
  cell["reserved_bytes"] = to_double(reserved);
  cell["compression_ratio"] =
      bytes.total() == 0 ? std::numeric_limits<double>::quiet_NaN() : raw / to_double(bytes.total());
  cell["bits_per_element"] = 8 * to_double(bytes.total()) / elements;
}

void Measurement::record_rungs() {
  if (pipeline_.ladder.empty()) return;
  const Json& adaptive = job_.parameters.at("adaptive");
  const Json& ladder = adaptive.is_array() ? adaptive : adaptive.at("ladder");
  for (const RungTokens& held : tokens_on_rungs(*cache_)) {
    std::string codec;
    if (held.rung >= 0) {
      const Json& entry = ladder.at(static_cast<std::size_t>(held.rung));
      const Json& both = entry.contains("codec") ? entry.at("codec") : entry;
      codec = (both.contains("method") ? both : both.at(held.role)).dump();
    }
    record_.rungs.push_back({{"id", job_.row.at("id")},
                             {"role", std::string(held.role)},
                             {"rung", std::int64_t{held.rung}},
                             {"codec", codec},
                             {"tokens", held.tokens}});
  }
}

void Measurement::record_quality() {
  std::vector<double> vector_errors;
  Row& cell = record_.cell;
  const auto layers = static_cast<double>(cache_->layers());
  for (const char* name : {"kept_tokens", "key_error", "value_error", "output_error", "output_cosine"})
    cell[name] = 0.0;
  const auto add = [&](Row& row, const char* name, double value) {
    row[name] = value;
    cell[name] = std::get<double>(cell[name]) + value / layers;
  };
  for (std::size_t i = 0; i < cache_->layers(); ++i) {
    const LayerQuality quality = judge(workload_.layers[i], cache_->layer(i), references_[i], outputs_[i]);
    Row row{{"id", job_.row.at("id")},
            {"layer", std::int64_t{workload_.layers[i].shape.layer}},
            {"bytes", to_double(cache_->layer(i).bytes().total())}};
    add(row, "kept_tokens", quality.kept_tokens);
    add(row, "key_error", quality.key_error);
    add(row, "value_error", quality.value_error);
    add(row, "output_error", quality.output_error);
    add(row, "output_cosine", quality.output_cosine);
    vector_errors.insert(vector_errors.end(), quality.vector_errors.begin(), quality.vector_errors.end());
    record_.layers.push_back(std::move(row));
  }
  std::sort(vector_errors.begin(), vector_errors.end());
  cell["output_error_median"] = quantile(vector_errors, 0.5);
  cell["output_error_p95"] = quantile(vector_errors, 0.95);
  cell["output_error_max"] = quantile(vector_errors, 1);
}

void Measurement::time(const char* metric, const std::function<void()>& call) {
  record_samples(metric, sample(job_.measure, backend_, call));
}

void Measurement::record_samples(const char* metric, std::vector<double> samples) {
  record_.samples.push_back({metric, samples});
  std::sort(samples.begin(), samples.end());
  const std::string name = std::string(metric) + "_seconds";
  record_.cell[name] = quantile(samples, 0.5);
  record_.cell[name + "_q25"] = quantile(samples, 0.25);
  record_.cell[name + "_q75"] = quantile(samples, 0.75);
  record_.cell[name + "_samples"] = to_double(samples.size());
}

void Measurement::record_compression() {
  const TimingTurn turn(job_.timing_fd);
  time("compress", [&] { prefill(); });
  std::uint64_t raw = 0;  // of the prefill
  for (const auto& layer : workload_.layers) {
    const LayerShape& shape = layer.shape;
    raw += shape.heads() * layer.prefilled * (shape.head_dim_keys + shape.head_dim_values) * size_of(shape.dtype);
  }
  record_.cell["compress_bandwidth"] = to_double(raw) / std::get<double>(record_.cell["compress_seconds"]);
}

void Measurement::record_speed() {
  const TimingTurn turn(job_.timing_fd);
  std::uint64_t largest = 0;
  std::uint64_t outputs = 0;
  std::uint64_t query_floats = 0;
  for (const auto& layer : workload_.layers) {
    const LayerShape& shape = layer.shape;
    const std::uint64_t channels = std::max(shape.head_dim_keys, shape.head_dim_values);
    largest = std::max(largest, shape.heads() * layer.tokens() * channels * size_of(shape.dtype));
    outputs = std::max(outputs, shape.batch * shape.query_heads * shape.head_dim_values);
    query_floats = std::max(query_floats, shape.batch * shape.query_heads * shape.head_dim_keys);
  }
  {
    const Mapping keys(largest);
    const Mapping values(largest);
    time("decompress", [&] {
      for (std::size_t i = 0; i < cache_->layers(); ++i) cache_->decompress(i, keys.data(), values.data());
    });
  }
  // One query per query head, at the position after the prefill. What it is does not matter to the time.
  std::vector<float> queries(query_floats);
  Random(static_cast<std::uint64_t>(job_.seed), {0}).normal(queries);
  std::vector<float> out(outputs);
  const std::vector<std::uint32_t> position{static_cast<std::uint32_t>(workload_.layers.front().tokens())};
  time("attend", [&] {
    for (std::size_t i = 0; i < cache_->layers(); ++i) {
      const LayerShape& shape = cache_->layer(i).shape();
      cache_->layer(i).attend(QueryTensor::contiguous(shape, shape.batch, 1, queries.data(), position), out.data());
    }
  });
  if (job_.measure.plain) {
    std::vector<PlainAttention> plain;
    for (std::size_t i = 0; i < cache_->layers(); ++i) plain.emplace_back(pipeline_, cache_->layer(i).shape());
    record_samples("plain_attend", sample_briefly(job_.measure, backend_, [&] {
                     for (std::size_t i = 0; i < cache_->layers(); ++i) {
                       plain[i].attend(cache_->layer(i), queries.data(), out.data());
                     }
                   }));
  }

  Row& cell = record_.cell;
  const double raw = static_cast<double>(std::get<std::int64_t>(job_.row.at("raw_bytes")));
  const double bytes = to_double(cache_->bytes().total());
  cell["decompress_bandwidth"] = raw / std::get<double>(cell["decompress_seconds"]);
  cell["attend_bandwidth"] = bytes / std::get<double>(cell["attend_seconds"]);
  cell["peak_read_bandwidth"] = job_.peak_read;
  cell["peak_copy_bandwidth"] = job_.peak_copy;
  const auto cache_level = to_double(last_level_cache_bytes());
  if (bytes >= 2 * cache_level) cell["attend_roofline"] = std::get<double>(cell["attend_bandwidth"]) / job_.peak_read;
}

}  // namespace

void measure_cell(const Job& job, Backend& backend, CellRecord& record) { Measurement(job, backend, record).run(); }

}  // namespace kvlab
