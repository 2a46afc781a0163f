#include "experiments/metrics/rungs.hpp"

namespace kvlab {
namespace {

void add_head(const Head& head, const std::vector<Segment>& segments, std::vector<double>& tokens) {
  std::vector<std::uint32_t> positions;
  head.positions.write_out(positions);
  for (const auto& segment : segments) {
    double& sum = tokens[segment.encoded ? std::size_t{segment.rung} + 1 : 0];
    for (std::uint64_t t = 0; t < segment.tokens; ++t) sum += positions[segment.first + t] < evicted ? 1 : 0;
  }
}

}  // namespace

std::vector<RungTokens> tokens_on_rungs(const CacheManager& cache) {
  std::vector<RungTokens> all;
  for (const bool is_keys : {true, false}) {
    std::vector<double> tokens(most_rungs + 1);
    std::size_t rungs = 0;
    double heads = 0;
    for (std::size_t i = 0; i < cache.layers(); ++i) {
      const LayerCache& layer = cache.layer(i);
      rungs = (is_keys ? layer.keys() : layer.values()).codecs.size();
      heads += static_cast<double>(layer.shape().heads());
      for (std::uint64_t index = 0; index < layer.shape().heads(); ++index) {
        const Head& head =
            layer.head(index / layer.shape().kv_heads, static_cast<std::uint32_t>(index % layer.shape().kv_heads));
        add_head(head, is_keys ? head.keys : head.values, tokens);
      }
    }
    for (std::size_t i = 0; rungs > 0 && i <= rungs; ++i) {
      all.push_back({is_keys ? "keys" : "values", static_cast<int>(i) - 1, tokens[i] / heads});
    }
  }
  return all;
}

}  // namespace kvlab
