// Tokens by the norms of their vectors. `of: keys, prefer: smallest` is Knorm (arXiv 2406.11430).
#include <kvlab/plugin.hpp>

#include <array>
#include <cmath>

namespace {

enum class Of { both, keys, values };
enum class Prefer { largest, smallest };
constexpr std::array of_names{"both", "keys", "values"};
constexpr std::array prefer_names{"largest", "smallest"};

float norm(std::span<const float> row) {
  float sum = 0;
  for (const float x : row) sum += x * x;
  return std::sqrt(sum);
}

struct Magnitude : kvlab::Selector {
  Of of;
  Prefer prefer;

  static constexpr kvlab::Info info{
      .id = "magnitude",
      .version = "1.0.0",
      .summary = "keeps tokens by the norm of key, value or both",
      .paper_title = "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression",
      .paper_arxiv = "2406.11430",
  };
  static constexpr auto parameters() {
    return std::tuple{
        kvlab::choice(&Magnitude::of, "of", Of::both, of_names, "whose L2 norm: |k| * |v|, |k| or |v|"),
        kvlab::choice(&Magnitude::prefer, "prefer", Prefer::largest, prefer_names, "which norms stay"),
    };
  }

  [[nodiscard]] unsigned reads() const {
    const unsigned keys = of == Of::values ? 0U : KVLAB_READS_KEYS;
    const unsigned values = of == Of::keys ? 0U : KVLAB_READS_VALUES;
    return keys | values;
  }
  [[nodiscard]] static unsigned scope() { return KVLAB_SCOPE_TOKEN; }
  [[nodiscard]] std::uint64_t scratch(std::uint64_t /*tokens*/, std::uint64_t /*observed*/) const {
    return kvlab::Scratch::size<float>(std::max(layer.head_dim_keys, layer.head_dim_values));
  }

  void scores(const kvlab::HeadView& head, std::span<float> out) const {
    kvlab::Scratch scratch = head.scratch;
    const auto row = scratch.take<float>(std::max(layer.head_dim_keys, layer.head_dim_values));
    const auto norm_of = [&](const kvlab::TokenView& tensor, std::uint64_t token) {
      tensor.read(token, row);
      return norm(row.first(tensor.channels));
    };
    for (std::uint64_t t = 0; t < head.tokens(); ++t) {
      const float key = of == Of::values ? 1.0F : norm_of(head.keys, t);
      const float value = of == Of::keys ? 1.0F : norm_of(head.values, t);
      out[t] = prefer == Prefer::largest ? key * value : -(key * value);
    }
  }
};

}  // namespace

KVLAB_PLUGIN(Magnitude)
