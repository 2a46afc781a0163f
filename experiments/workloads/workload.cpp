#include "experiments/workloads/workload.hpp"

#include <cmath>

#include "experiments/config/reader.hpp"
#include "experiments/workloads/synthetic/synthetic.hpp"
#include "experiments/workloads/trace/source.hpp"

namespace kvlab {
namespace {

bool all_finite(const std::byte* data, Dtype dtype, std::size_t count) {
  if (dtype == Dtype::f32) {
    const auto* values = reinterpret_cast<const float*>(data);
    for (std::size_t i = 0; i < count; ++i) {
      if (!std::isfinite(values[i])) return false;
    }
    return true;
  }
  const auto exponent = static_cast<std::uint16_t>(dtype == Dtype::bf16 ? 0x7F80U : 0x7C00U);  // all ones: not finite
  const auto* bits = reinterpret_cast<const std::uint16_t*>(data);
  bool finite = true;
  for (std::size_t i = 0; i < count; ++i) finite = finite && (bits[i] & exponent) != exponent;
  return finite;
}

}  // namespace

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
    const auto check = [&](const char* name, const KvTensor& tensor, std::uint64_t channels) {
      backend.each(shape.heads(), [&](std::size_t index, std::size_t /*thread*/) {
        const auto kv_head = static_cast<std::uint32_t>(index % shape.kv_heads);
        const std::byte* head = tensor.head(index / shape.kv_heads, kv_head, shape.dtype);
        if (!all_finite(head, shape.dtype, layer.tokens * channels)) {
          throw InputError("the workload's " + std::string(name) + " hold NaN or infinity in layer " +
                           std::to_string(shape.layer) + ", sequence " + std::to_string(index / shape.kv_heads) +
                           ", KV head " + std::to_string(kv_head));
        }
      });
    };
    check("keys", layer.prefill.keys, shape.head_dim_keys);
    check("values", layer.prefill.values, shape.head_dim_values);
  }
}

}  // namespace kvlab
