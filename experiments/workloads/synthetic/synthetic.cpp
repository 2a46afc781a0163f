#include "experiments/workloads/synthetic/synthetic.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/nearest.hpp"
#include "experiments/config/reader.hpp"
#include "experiments/workloads/synthetic/generator.hpp"

namespace kvlab {
namespace {

constexpr std::uint64_t queries_a_head = 16;  // observed, and as many judged

Parameter dtype_parameter() {
  Parameter parameter;
  parameter.name = "dtype";
  parameter.type = ParameterType::choice;
  parameter.choices = {"bf16", "f16", "f32"};
  parameter.meaning = "element type of K and V";
  return parameter;
}

Dtype dtype_of(const std::string& name) {
  return name == "f32" ? Dtype::f32 : name == "f16" ? Dtype::f16 : Dtype::bf16;
}

const Generator& find_generator(const Node& at, const std::string& name) {
  std::vector<std::string> names;
  for (const auto& generator : generators()) {
    if (generator.name == name) return generator;
    names.push_back(generator.name);
  }
  refuse(at, "there is no workload generator '" + name + "'" + suggestion(name, names));
}

class SyntheticSource : public WorkloadSource {
 public:
  SyntheticSource(const Node& tree, const std::string& what) {
    MapReader reader(tree, what);
    const Node& name = reader.required("synthetic");
    generator_ = &find_generator(name, scalar_of(name, "synthetic"));
    std::vector<kvlab_value> common;
    for (const auto& parameter : common_parameters()) common.push_back(reader.value(parameter));
    for (const auto& parameter : generator_->parameters) values_.push_back(reader.value(parameter));
    shape_.batch = static_cast<std::uint64_t>(common[0].i);
    shape_.layers = static_cast<std::uint64_t>(common[1].i);
    shape_.kv_heads = static_cast<std::uint32_t>(common[2].i);
    shape_.query_heads = static_cast<std::uint32_t>(common[3].i);
    shape_.head_dim = static_cast<std::uint32_t>(common[5].i);
    shape_.dtype = dtype_of(text_of(common_parameters()[6], common[6]));
    drawn_tokens_ = static_cast<std::uint64_t>(common[4].i);
    shape_.tokens = static_cast<std::uint64_t>(reader.integer("prefill", static_cast<std::int64_t>(drawn_tokens_), 1,
                                                              static_cast<std::int64_t>(drawn_tokens_)));
    const bool decode = reader.boolean("decode", false);
    reader.finish();
    if (decode && shape_.tokens == drawn_tokens_) {
      refuse(*tree.find("decode"), "decode needs tokens beyond the prefill, and prefill is all " +
                                       std::to_string(drawn_tokens_) + " of them");
    }
    if (decode) shape_.decoded = drawn_tokens_ - shape_.tokens;
    if (shape_.query_heads % shape_.kv_heads != 0) {
      refuse(*tree.find(tree.find("query_heads") != nullptr ? "query_heads" : "synthetic"),
             "query_heads " + std::to_string(shape_.query_heads) + " is not a multiple of kv_heads " +
                 std::to_string(shape_.kv_heads));
    }
    shape_.observed = std::min(queries_a_head, shape_.tokens);
    shape_.judged = decode ? std::min(queries_a_head, shape_.decoded) : queries_a_head;
    effective_ = {{"synthetic", generator_->name}};
    effective_.update(to_json(common_parameters(), common));
    effective_["prefill"] = shape_.tokens;
    if (decode) effective_["decode"] = true;
    effective_.update(to_json(generator_->parameters, values_));
  }

  [[nodiscard]] WorkloadShape shape() const override { return shape_; }
  [[nodiscard]] Json effective() const override { return effective_; }
  [[nodiscard]] Json portable() const override { return effective_; }
  [[nodiscard]] std::string identity() const override { return generator_->name + " " + generator_->version; }

  [[nodiscard]] Workload load(std::uint64_t seed, Backend& backend) const override {
    Workload workload;
    std::vector<std::uint32_t> before(shape_.observed);
    std::vector<std::uint32_t> after(shape_.judged);
    std::iota(before.begin(), before.end(), static_cast<std::uint32_t>(shape_.tokens - shape_.observed));
    // Spread over the decoded tokens, the last one's among them; without any, one after another.
    for (std::uint64_t i = 0; i < after.size(); ++i) {
      const std::uint64_t later = shape_.decoded > 0 ? (i + 1) * shape_.decoded / after.size() - 1 : i;
      after[i] = static_cast<std::uint32_t>(shape_.tokens + later);
    }
    const auto observed = workload.keep(std::move(before));
    const auto judged = workload.keep(std::move(after));
    for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
      draw_layer(workload, layer, seed, observed, judged, backend);
    }
    return workload;
  }

 private:
  void draw_layer(Workload& workload, std::uint32_t number, std::uint64_t seed, std::span<const std::uint32_t> observed,
                  std::span<const std::uint32_t> judged, Backend& backend) const {
    WorkloadLayer layer;
    layer.shape.layer = number;
    layer.shape.batch = shape_.batch;
    layer.shape.kv_heads = shape_.kv_heads;
    layer.shape.query_heads = shape_.query_heads;
    layer.shape.head_dim_keys = shape_.head_dim;
    layer.shape.head_dim_values = shape_.head_dim;
    layer.shape.dtype = shape_.dtype;
    layer.shape.attention_scale = 1 / std::sqrt(static_cast<double>(shape_.head_dim));
    layer.shape.seed = seed;
    layer.shape.check();

    const std::uint64_t head_size = (shape_.tokens + shape_.decoded) * shape_.head_dim;
    const std::uint64_t head_bytes = head_size * size_of(shape_.dtype);
    auto* keys = workload.allocate<std::byte>(layer.shape.heads() * head_bytes);
    auto* values = workload.allocate<std::byte>(layer.shape.heads() * head_bytes);
    const std::uint64_t group_queries = layer.shape.group() * shape_.head_dim;
    const std::uint64_t observed_size = observed.size() * group_queries;
    const std::uint64_t judged_size = judged.size() * group_queries;
    auto* observed_rows = workload.allocate<float>(layer.shape.heads() * observed_size);
    auto* judged_rows = workload.allocate<float>(layer.shape.heads() * judged_size);
    std::vector<Buffer> scratch(backend.threads());
    backend.each(layer.shape.heads(), [&](std::size_t index, std::size_t thread) {
      // Tokens beyond the prefill are drawn too: a shorter prefill of a workload sees the same first tokens.
      const std::uint64_t drawn = drawn_tokens_ * shape_.head_dim;
      float* rows = scratch[thread].ensure<float>(2 * drawn);
      HeadDraw head{seed,
                    number,
                    index / shape_.kv_heads,
                    index % shape_.kv_heads,
                    drawn_tokens_,
                    shape_.tokens,
                    shape_.head_dim,
                    layer.shape.attention_scale,
                    {rows, drawn},
                    {rows + drawn, drawn},
                    {observed_rows + index * observed_size, observed_size},
                    {judged_rows + index * judged_size, judged_size}};
      generator_->draw(values_, head);
      from_f32(shape_.dtype, rows, keys + index * head_bytes, head_size);
      from_f32(shape_.dtype, rows + drawn, values + index * head_bytes, head_size);
    });

    const LayerShape& shape = layer.shape;
    const std::uint64_t tokens = shape_.tokens + shape_.decoded;
    layer.keys = KvTensor::contiguous(shape, KVLAB_ROLE_KEYS, shape.batch, tokens, keys);
    layer.values = KvTensor::contiguous(shape, KVLAB_ROLE_VALUES, shape.batch, tokens, values);
    layer.prefilled = shape_.tokens;
    layer.observed = QueryTensor::contiguous(shape, shape.batch, observed.size(), observed_rows, observed);
    layer.judged = QueryTensor::contiguous(shape, shape.batch, judged.size(), judged_rows, judged);
    workload.layers.push_back(std::move(layer));
  }

  const Generator* generator_ = nullptr;
  std::vector<kvlab_value> values_;
  WorkloadShape shape_;
  std::uint64_t drawn_tokens_ = 0;
  Json effective_;
};

}  // namespace

const std::vector<Parameter>& common_parameters() {
  static const std::vector<Parameter> parameters{
      integer_parameter("batch", 1, 1, 1 << 20, "sequence", "sequences"),
      integer_parameter("layers", 1, 1, 1024, "layer", "how many layers"),
      integer_parameter("kv_heads", 8, 1, 65536, "head", "KV heads per layer"),
      integer_parameter("query_heads", 32, 1, 65536, "head", "query heads per layer, a multiple of kv_heads"),
      integer_parameter("tokens", 4096, 1, std::int64_t{1} << 30, "token", "tokens per sequence"),
      integer_parameter("head_dim", 128, 1, 512, "channel", "channels of keys and values"),
      dtype_parameter(),
  };
  return parameters;
}

std::unique_ptr<WorkloadSource> resolve_synthetic(const Node& tree, const std::string& what) {
  return std::make_unique<SyntheticSource>(tree, what);
}

}  // namespace kvlab
