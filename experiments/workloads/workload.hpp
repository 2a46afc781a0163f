// Where K, V and the queries come from. A source is what the experiment file describes; loading it makes the tensors.
//
// P tokens are prefilled. Observed queries are at positions below P and may be shown to methods; judged ones are at P
// and above, and no method ever sees them. A workload that decodes has tokens beyond P, which are appended one by one;
// its judged queries attend at their own positions, another's to the prefill.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/backend/backend.hpp"
#include "core/base/memory.hpp"
#include "core/pipeline/layer_shape.hpp"
#include "core/pipeline/tensors.hpp"
#include "experiments/config/json.hpp"

namespace kvlab {

// What planning knows before anything is loaded.
struct WorkloadShape {
  std::uint64_t batch = 0;
  std::uint64_t layers = 0;
  std::uint32_t kv_heads = 0;
  std::uint32_t query_heads = 0;
  std::uint32_t head_dim = 0;
  std::uint64_t tokens = 0;  // P
  Dtype dtype = Dtype::bf16;
  std::uint64_t observed = 0;  // queries per query head
  std::uint64_t judged = 0;
  std::uint64_t decoded = 0;  // tokens beyond the prefill that are appended

  // Of K and V, all tokens.
  [[nodiscard]] std::uint64_t elements() const { return 2 * batch * layers * kv_heads * (tokens + decoded) * head_dim; }
  [[nodiscard]] std::uint64_t raw_bytes() const { return elements() * size_of(dtype); }
  [[nodiscard]] std::uint64_t query_bytes() const {
    return batch * layers * query_heads * (observed + judged) * head_dim * sizeof(float);
  }
};

struct WorkloadLayer {
  LayerShape shape;
  KvTensor keys;  // all tokens, prefilled and decoded
  KvTensor values;
  std::uint64_t prefilled = 0;  // P
  QueryTensor observed;
  QueryTensor judged;

  [[nodiscard]] std::uint64_t tokens() const { return keys.tokens; }
  [[nodiscard]] bool decodes() const { return tokens() > prefilled; }
  [[nodiscard]] Prefill prefill() const { return {keys.slice(0, prefilled), values.slice(0, prefilled), observed}; }
};

// Tensors and their memory.
struct Workload {
  std::vector<WorkloadLayer> layers;
  std::vector<Mapping> memory;
  std::vector<std::unique_ptr<std::vector<std::uint32_t>>> positions;

  // Memory that lives as long as this.
  template <class T>
  T* allocate(std::size_t count) {
    memory.emplace_back(count * sizeof(T));
    return reinterpret_cast<T*>(memory.back().data());
  }
  std::span<const std::uint32_t> keep(std::vector<std::uint32_t> values) {
    positions.push_back(std::make_unique<std::vector<std::uint32_t>>(std::move(values)));
    return *positions.back();
  }
};

class WorkloadSource {
 public:
  WorkloadSource() = default;
  virtual ~WorkloadSource() = default;
  WorkloadSource(const WorkloadSource&) = delete;
  WorkloadSource& operator=(const WorkloadSource&) = delete;

  [[nodiscard]] virtual WorkloadShape shape() const = 0;
  [[nodiscard]] virtual Json effective() const = 0;        // all that took effect, as in the column `parameters`
  [[nodiscard]] virtual std::string identity() const = 0;  // of the content, with effective() and the seed
  // What a worker resolves the source from again: effective(), with absolute paths.
  [[nodiscard]] virtual Json portable() const = 0;
  [[nodiscard]] virtual Workload load(std::uint64_t seed, Backend& backend) const = 0;
};

// From the experiment's tree, without sweeps. `folder`: what paths are relative to. `trusted`: a trace was checked
// before, by the process that started this one. Throws InputError with a place.
std::unique_ptr<WorkloadSource> resolve_workload(const Node& tree, const std::string& what, const std::string& folder,
                                                 bool trusted = false);

// Throws InputError where K or V hold NaN or infinity: codecs are never given any.
void check_finite(const Workload& workload, Backend& backend);

}  // namespace kvlab
