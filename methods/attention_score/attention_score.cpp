// Tokens by the attention that the observed queries pay to them: the idea of SnapKV (arXiv 2404.14469) and H2O
// (arXiv 2306.14048), without pooling.
#include <kvlab/plugin.hpp>

#include <algorithm>
#include <array>
#include <cmath>

namespace {

enum class Reduce { mean, max };
constexpr std::array reduce_names{"mean", "max"};

struct AttentionScore : kvlab::Selector {
  std::uint64_t observe;
  Reduce reduce;

  static constexpr kvlab::Info info{
      .id = "attention_score",
      .version = "1.0.0",
      .summary = "keeps the tokens that the last observed queries attend to",
      .paper_title = "SnapKV: LLM Knows What You are Looking for Before Generation",
      .paper_arxiv = "2404.14469",
  };
  static constexpr auto parameters() {
    return std::tuple{
        kvlab::integer(&AttentionScore::observe, "observe", 64, kvlab::Range{1, 1 << 30}, "query",
                       "the last so many observed queries vote"),
        kvlab::choice(&AttentionScore::reduce, "reduce", Reduce::mean, reduce_names,
                      "over all (query, query head) pairs of the group"),
    };
  }

  [[nodiscard]] unsigned reads() const { return KVLAB_READS_KEYS | KVLAB_READS_QUERIES; }
  [[nodiscard]] std::uint64_t scratch(std::uint64_t tokens, std::uint64_t /*observed*/) const {
    return kvlab::Scratch::size<float>(tokens * layer.head_dim_keys) + kvlab::Scratch::size<float>(tokens);
  }

  void scores(const kvlab::HeadView& head, std::span<float> out) const {
    const kvlab_queries& observed = head.observed;
    if (observed.count == 0) throw kvlab::Unsupported("the workload has no observed queries to score tokens with");
    kvlab::Scratch scratch = head.scratch;
    const auto keys = scratch.take<float>(head.tokens() * layer.head_dim_keys);
    const auto weights = scratch.take<float>(head.tokens());
    head.keys.read_all(keys);
    std::fill(out.begin(), out.end(), 0.0F);
    const std::uint64_t first = observed.count - std::min(observe, observed.count);
    for (std::uint32_t h = 0; h < observed.heads; ++h) {
      for (std::uint64_t i = first; i < observed.count; ++i) {
        attend(head.query(h, i), keys, head.positions, observed.positions[i], weights);
        for (std::size_t t = 0; t < out.size(); ++t) {
          out[t] = reduce == Reduce::mean ? out[t] + weights[t] : std::max(out[t], weights[t]);
        }
      }
    }
    if (reduce == Reduce::max) return;
    const auto pairs = static_cast<float>(observed.heads * (observed.count - first));
    for (auto& score : out) score /= pairs;
  }

  // softmax(scale q k) over the tokens at positions <= the query's; 0 for the others.
  void attend(std::span<const float> query, std::span<const float> keys, std::span<const std::uint32_t> positions,
              std::uint32_t position, std::span<float> weights) const {
    const auto visible =
        static_cast<std::size_t>(std::upper_bound(positions.begin(), positions.end(), position) - positions.begin());
    std::fill(weights.begin(), weights.end(), 0.0F);
    if (visible == 0) return;
    for (std::size_t t = 0; t < visible; ++t) {
      float sum = 0;
      for (std::size_t c = 0; c < query.size(); ++c) sum += query[c] * keys[t * query.size() + c];
      weights[t] = sum * static_cast<float>(layer.attention_scale);
    }
    const auto seen = weights.first(visible);
    const float largest = *std::max_element(seen.begin(), seen.end());
    float total = 0;
    for (auto& weight : seen) {
      weight = std::exp(weight - largest);
      total += weight;
    }
    for (auto& weight : seen) weight /= total;
  }
};

}  // namespace

KVLAB_PLUGIN(AttentionScore)
