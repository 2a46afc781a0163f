#include "experiments/metrics/rungs.hpp"

namespace kvlab {

std::vector<RungTokens> tokens_on_rungs(const CacheManager& cache) {
  std::vector<RungTokens> all;
  for (const std::uint32_t which : both_roles) {
    std::vector<std::uint64_t> tokens(most_rungs + 1);
    std::size_t rungs = 0;
    double heads = 0;
    for (std::size_t i = 0; i < cache.layers(); ++i) {
      const LayerCache& layer = cache.layer(i);
      const LayerShape& shape = layer.shape();
      rungs = layer.layer().role(which).codecs.size();
      heads += static_cast<double>(shape.heads());
      for (std::uint64_t index = 0; index < shape.heads(); ++index) {
        layer.count_rungs(index / shape.kv_heads, static_cast<std::uint32_t>(index % shape.kv_heads), which, tokens);
      }
    }
    for (std::size_t i = 0; rungs > 0 && i <= rungs; ++i) {
      const char* name = which == KVLAB_ROLE_KEYS ? "keys" : "values";
      all.push_back({name, static_cast<int>(i) - 1, static_cast<double>(tokens[i]) / heads});
    }
  }
  return all;
}

}  // namespace kvlab
