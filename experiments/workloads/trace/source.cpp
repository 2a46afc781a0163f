#include "experiments/workloads/trace/source.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "experiments/config/reader.hpp"
#include "experiments/workloads/trace/trace.hpp"

namespace kvlab {
namespace {

std::vector<std::uint64_t> read_numbers(const Node& node, const std::string& what) {
  std::vector<std::uint64_t> numbers;
  std::set<std::uint64_t> seen;
  for (const auto& item : require_list(node, what).items) {
    numbers.push_back(static_cast<std::uint64_t>(integer_of(item, what, 0, 1'000'000'000)));
    if (!seen.insert(numbers.back()).second) refuse(item, what + " names " + item.scalar + " a second time");
  }
  if (numbers.empty()) refuse(node, what + " is an empty list");
  return numbers;
}

class TraceSource : public WorkloadSource {
 public:
  TraceSource(const Node& tree, const std::string& what, const std::string& folder, bool trusted) {
    MapReader reader(tree, what);
    const Node& name = reader.required("trace");
    written_ = scalar_of(name, "trace");
    if (written_.empty() || written_.find('\0') != std::string::npos) refuse(name, "trace is no name of a file");
    path_ = std::filesystem::absolute(std::filesystem::path(folder) / written_).lexically_normal();
    try {
      if (trusted) {
        header_ = header_in_worker(reader);
      } else {
        CheckedTrace checked = check_trace(path_);
        stamp_ = std::move(checked.stamp);
        hash_ = std::move(checked.hash);
        header_ = std::move(checked.header);
      }
    } catch (const InputError& error) {
      refuse(name, error.what());
    }
    choose_layers(reader.optional("layers"));
    choose_sequences(reader.optional("sequences"));
    prefill_ = static_cast<std::uint64_t>(reader.integer("prefill", static_cast<std::int64_t>(header_.prefill_tokens),
                                                         1, static_cast<std::int64_t>(header_.tokens)));
    if (reader.boolean("decode", false)) {
      decoded_ = header_.tokens - prefill_;
      if (decoded_ == 0) {
        refuse(*tree.find("decode"), "decode needs tokens beyond the prefill, and the trace has " +
                                         std::to_string(header_.tokens) + " tokens");
      }
    }
    reader.finish();
    const auto& positions = header_.query_positions;
    observed_ =
        static_cast<std::uint64_t>(std::lower_bound(positions.begin(), positions.end(), prefill_) - positions.begin());
  }

  [[nodiscard]] WorkloadShape shape() const override {
    return {sequences_.size(),
            layers_.size(),
            header_.kv_heads,
            header_.query_heads,
            header_.head_dim,
            prefill_,
            header_.dtype,
            observed_,
            header_.query_positions.size() - observed_,
            decoded_};
  }
  [[nodiscard]] std::string identity() const override { return "trace " + hash_; }
  [[nodiscard]] Json effective() const override { return describe(written_); }
  [[nodiscard]] Json portable() const override {
    Json described = describe(path_.string());
    described["stamp"] = stamp_;
    described["hash"] = hash_;
    return described;
  }

  [[nodiscard]] Workload load(std::uint64_t seed, Backend& /*backend*/) const override {
    const h5::Object file = h5::open_file(path_);
    const Trace trace(file);
    Workload workload;
    const auto& positions = header_.query_positions;
    const auto split = positions.begin() + static_cast<std::ptrdiff_t>(observed_);
    const auto observed = workload.keep({positions.begin(), split});
    const auto judged = workload.keep({split, positions.end()});
    for (const auto& layer : layers_) load_layer(trace, layer, seed, observed, judged, workload);
    return workload;
  }

 private:
  // The file that the runner had checked, or another of the same content.
  TraceHeader header_in_worker(MapReader& reader) const {
    const std::string stamp = reader.text("stamp", "");
    const std::string hash = reader.text("hash", "");
    if (stamp_of_trace(path_) != stamp && check_trace(path_).hash != hash) {
      throw InputError(path_.string() + ": it has changed since this run began");
    }
    const h5::Object file = h5::open_file(path_);
    return Trace(file).header();
  }

  void choose_layers(const Node* node) {
    layers_ = header_.layers;
    if (node == nullptr) return;
    layers_.clear();
    std::string valid;
    for (const auto& layer : header_.layers) valid += (valid.empty() ? "" : ", ") + std::to_string(layer.layer);
    for (const std::uint64_t number : read_numbers(*node, "layers")) {
      const auto found = std::find_if(header_.layers.begin(), header_.layers.end(),
                                      [&](const auto& layer) { return layer.layer == number; });
      if (found == header_.layers.end()) {
        refuse(*node, "the trace has no layer " + std::to_string(number) + "; valid: " + valid);
      }
      layers_.push_back(*found);
    }
  }

  void choose_sequences(const Node* node) {
    if (node != nullptr) sequences_ = read_numbers(*node, "sequences");
    for (const std::uint64_t sequence : sequences_) {
      if (sequence >= header_.sequences) {
        refuse(*node, "the trace has no sequence " + std::to_string(sequence) + "; valid: 0 .. " +
                          std::to_string(header_.sequences - 1));
      }
    }
    for (std::uint64_t s = 0; node == nullptr && s < header_.sequences; ++s) sequences_.push_back(s);
  }

  [[nodiscard]] Json describe(const std::string& path) const {
    Json layers = Json::array();
    for (const auto& layer : layers_) layers.push_back(layer.layer);
    Json described{{"trace", path}, {"layers", layers}, {"sequences", sequences_}, {"prefill", prefill_}};
    if (decoded_ > 0) described["decode"] = true;
    return described;
  }

  [[nodiscard]] LayerShape shape_of(const TraceLayer& layer, std::uint64_t seed) const {
    LayerShape shape;
    shape.layer = layer.layer;
    shape.batch = sequences_.size();
    shape.kv_heads = header_.kv_heads;
    shape.query_heads = header_.query_heads;
    shape.head_dim_keys = header_.head_dim;
    shape.head_dim_values = header_.head_dim;
    shape.dtype = header_.dtype;
    shape.attention_scale = header_.attention_scale;
    shape.window = layer.window;
    shape.rope_style = header_.rope_style;
    shape.inv_freq = header_.inv_freq;
    shape.seed = seed;
    return shape;
  }

  void load_layer(const Trace& trace, const TraceLayer& from, std::uint64_t seed,
                  std::span<const std::uint32_t> observed, std::span<const std::uint32_t> judged,
                  Workload& workload) const {
    WorkloadLayer layer;
    layer.shape = shape_of(from, seed);
    const std::uint64_t tokens = prefill_ + decoded_;
    const std::uint64_t head_size = tokens * header_.head_dim;
    const std::uint64_t sequence_size = header_.kv_heads * head_size;
    const std::uint64_t element = size_of(header_.dtype);
    auto* keys = workload.allocate<std::byte>(sequences_.size() * sequence_size * element);
    auto* values = workload.allocate<std::byte>(sequences_.size() * sequence_size * element);
    const std::uint64_t query_rows = sequences_.size() * header_.query_heads * header_.head_dim;
    auto* observed_rows = workload.allocate<float>(query_rows * observed.size());
    auto* judged_rows = workload.allocate<float>(query_rows * judged.size());
    std::vector<float> queries;
    for (std::size_t s = 0; s < sequences_.size(); ++s) {
      trace.read_tensor(from, "keys", sequences_[s], tokens, keys + s * sequence_size * element);
      trace.read_tensor(from, "values", sequences_[s], tokens, values + s * sequence_size * element);
      trace.read_queries(from, sequences_[s], queries);
      split_queries(queries, s, observed.size(), judged.size(), observed_rows, judged_rows);
    }
    const LayerShape& shape = layer.shape;
    layer.keys = KvTensor::contiguous(shape, KVLAB_ROLE_KEYS, shape.batch, tokens, keys);
    layer.values = KvTensor::contiguous(shape, KVLAB_ROLE_VALUES, shape.batch, tokens, values);
    layer.prefilled = prefill_;
    layer.observed = QueryTensor::contiguous(shape, shape.batch, observed.size(), observed_rows, observed);
    layer.judged = QueryTensor::contiguous(shape, shape.batch, judged.size(), judged_rows, judged);
    workload.layers.push_back(std::move(layer));
  }

  // One sequence's [query_head, query, channel] into the observed and the judged, each [batch, query_head, query,
  // channel].
  void split_queries(const std::vector<float>& queries, std::size_t sequence, std::size_t observed, std::size_t judged,
                     float* observed_rows, float* judged_rows) const {
    const std::size_t d = header_.head_dim;
    for (std::size_t h = 0; h < header_.query_heads; ++h) {
      const float* head = queries.data() + h * (observed + judged) * d;
      const std::size_t row = sequence * header_.query_heads + h;
      if (observed > 0) std::memcpy(observed_rows + row * observed * d, head, observed * d * sizeof(float));
      if (judged > 0) std::memcpy(judged_rows + row * judged * d, head + observed * d, judged * d * sizeof(float));
    }
  }

  std::string written_;
  std::filesystem::path path_;
  std::string stamp_;
  std::string hash_;
  TraceHeader header_;
  std::vector<TraceLayer> layers_;
  std::vector<std::uint64_t> sequences_;
  std::uint64_t prefill_ = 0;
  std::uint64_t decoded_ = 0;
  std::uint64_t observed_ = 0;
};

}  // namespace

std::unique_ptr<WorkloadSource> resolve_trace(const Node& tree, const std::string& what, const std::string& folder,
                                              bool trusted) {
  return std::make_unique<TraceSource>(tree, what, folder, trusted);
}

}  // namespace kvlab
