#include "experiments/run/decoding.hpp"

#include <algorithm>
#include <numeric>

#include "experiments/workloads/synthetic/random.hpp"

namespace kvlab {
namespace {

class Decoder {
 public:
  Decoder(const Workload& workload, CacheManager& cache, std::uint64_t seed)
      : workload_(workload),
        cache_(cache),
        backend_(cache.layer(0).backend()),
        sequences_(workload.layers.front().shape.batch) {
    std::iota(sequences_.begin(), sequences_.end(), 0U);
    for (const auto& layer : workload.layers) {
      const LayerShape& shape = layer.shape;
      decoding_.outputs.emplace_back(shape.batch * shape.query_heads * layer.judged.count * shape.head_dim_values);
      queries_.emplace_back(shape.batch * shape.query_heads * shape.head_dim_keys);
      outputs_.emplace_back(shape.batch * shape.query_heads * shape.head_dim_values);
      // Where no query is judged any will do: what it is does not matter to the time.
      Random(seed, {shape.layer}).normal(queries_.back());
    }
    state_bytes_ = cache.bytes().total() - cache.requested_bytes();
  }

  Decoding run() {
    const WorkloadLayer& first = workload_.layers.front();
    std::size_t judged = 0;
    for (std::uint64_t token = first.prefilled; token < first.tokens(); ++token) {
      const auto& positions = first.judged.positions;
      const bool is_judged = judged < positions.size() && positions[judged] == token;
      if (is_judged) choose_queries(judged);
      step(token);
      if (is_judged) keep_outputs(judged++);
      for (; judged < positions.size() && positions[judged] == token; ++judged) {  // more at the same position
        choose_queries(judged);
        attend(token);
        keep_outputs(judged);
      }
    }
    cache_.flush();
    return std::move(decoding_);
  }

 private:
  void step(std::uint64_t token) {
    const double start = backend_.now();
    for (std::size_t i = 0; i < workload_.layers.size(); ++i) {
      const WorkloadLayer& layer = workload_.layers[i];
      cache_.append(i, sequences_, layer.keys.slice(token, 1), layer.values.slice(token, 1));
    }
    const double appended = backend_.now();
    attend(token);
    decoding_.append_seconds.push_back(appended - start);
    decoding_.step_seconds.push_back(backend_.now() - start);
    decoding_.peak_bytes = std::max(decoding_.peak_bytes, cache_.requested_bytes() + state_bytes_);
  }

  void attend(std::uint64_t token) {
    const auto position = static_cast<std::uint32_t>(token);
    for (std::size_t i = 0; i < workload_.layers.size(); ++i) {
      const auto queries = QueryTensor::contiguous(workload_.layers[i].shape, sequences_.size(), 1, queries_[i].data(),
                                                   std::span(&position, 1));
      cache_.attend(i, sequences_, queries, outputs_[i].data());
    }
  }

  // Query `index` of each query head: [batch, query_head, query, channel] has it apart.
  void choose_queries(std::size_t index) {
    for (std::size_t i = 0; i < workload_.layers.size(); ++i) {
      const WorkloadLayer& layer = workload_.layers[i];
      const std::uint64_t channels = layer.shape.head_dim_keys;
      for (std::uint64_t head = 0; head < queries_[i].size() / channels; ++head) {
        std::copy_n(layer.judged.base + (head * layer.judged.count + index) * channels, channels,
                    queries_[i].data() + head * channels);
      }
    }
  }

  void keep_outputs(std::size_t index) {
    for (std::size_t i = 0; i < workload_.layers.size(); ++i) {
      const WorkloadLayer& layer = workload_.layers[i];
      const std::uint64_t channels = layer.shape.head_dim_values;
      for (std::uint64_t head = 0; head < outputs_[i].size() / channels; ++head) {
        std::copy_n(outputs_[i].data() + head * channels, channels,
                    decoding_.outputs[i].data() + (head * layer.judged.count + index) * channels);
      }
    }
  }

  const Workload& workload_;
  CacheManager& cache_;
  Backend& backend_;
  std::vector<std::uint32_t> sequences_;
  std::vector<std::vector<float>> queries_;  // a layer: [batch, query_head, channel]
  std::vector<std::vector<float>> outputs_;
  std::uint64_t state_bytes_ = 0;
  Decoding decoding_;
};

}  // namespace

Decoding decode_tokens(const Workload& workload, CacheManager& cache, std::uint64_t seed) {
  return Decoder(workload, cache, seed).run();
}

}  // namespace kvlab
