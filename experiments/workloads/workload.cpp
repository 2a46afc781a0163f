#include "experiments/workloads/workload.hpp"

#include "experiments/config/reader.hpp"
#include "experiments/workloads/synthetic/synthetic.hpp"
#include "experiments/workloads/trace/source.hpp"

namespace kvlab {

std::unique_ptr<WorkloadSource> resolve_workload(const Node& tree, const std::string& what, const std::string& folder,
                                                 bool trusted) {
  require_map(tree, what);
  const bool trace = tree.find("trace") != nullptr;
  if (trace == (tree.find("synthetic") != nullptr)) refuse(tree, what + " needs 'trace' or 'synthetic', and not both");
  if (trace) return resolve_trace(tree, what, folder, trusted);
  return resolve_synthetic(tree, what);
}

void check_finite(const Workload& workload, Backend& backend) {
  for (const auto& layer : workload.layers) {
    const LayerShape& shape = layer.shape;
    const auto check = [&](const char* name, const KvTensor& tensor) {
      backend.each(shape.heads(), [&](std::size_t index, std::size_t /*thread*/) {
        const auto kv_head = static_cast<std::uint32_t>(index % shape.kv_heads);
        if (!all_finite(tensor.head(index / shape.kv_heads, kv_head), tensor.tokens, tensor.channels)) {
          throw InputError("the workload's " + std::string(name) + " hold NaN or infinity in layer " +
                           std::to_string(shape.layer) + ", sequence " + std::to_string(index / shape.kv_heads) +
                           ", KV head " + std::to_string(kv_head));
        }
      });
    };
    check("keys", layer.keys);
    check("values", layer.values);
  }
}

}  // namespace kvlab
