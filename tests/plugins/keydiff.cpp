// KeyDiff (arXiv 2504.15364): a token's score is minus the cosine of its key to the mean of all normalised keys. With
// DECLARES_TOKEN it claims that a score depends on its own token alone, which is a lie.
#include <kvlab/plugin.hpp>

#include <cmath>

namespace {

struct KeyDiff : kvlab::Selector {
#if defined(DECLARES_TOKEN)
  static constexpr kvlab::Info info{.id = "keydiff_liar", .version = "1", .summary = "a selector for tests"};
  [[nodiscard]] static unsigned scope() { return KVLAB_SCOPE_TOKEN; }
#else
  static constexpr kvlab::Info info{.id = "keydiff", .version = "1", .summary = "a selector for tests"};
#endif

  [[nodiscard]] static unsigned reads() { return KVLAB_READS_KEYS; }
  [[nodiscard]] std::uint64_t scratch(std::uint64_t tokens, std::uint64_t /*observed*/) const {
    return kvlab::Scratch::size<float>(tokens * layer.head_dim_keys) + kvlab::Scratch::size<float>(layer.head_dim_keys);
  }

  void scores(const kvlab::HeadView& head, std::span<float> out) const {
    kvlab::Scratch scratch = head.scratch;
    const std::uint64_t channels = layer.head_dim_keys;
    const auto keys = scratch.take<float>(head.tokens() * channels);
    const auto mean = scratch.take<float>(channels);
    head.keys.read_all(keys);
    std::fill(mean.begin(), mean.end(), 0.0F);
    for (std::size_t t = 0; t < out.size(); ++t) {
      const auto key = keys.subspan(t * channels, channels);
      const float norm = std::sqrt(dot(key, key));
      for (std::size_t c = 0; c < channels; ++c) {
        key[c] = norm > 0 ? key[c] / norm : 0;
        mean[c] += key[c] / static_cast<float>(out.size());
      }
    }
    const float norm = std::sqrt(dot(mean, mean));
    for (std::size_t t = 0; t < out.size(); ++t) {
      out[t] = norm > 0 ? -dot(keys.subspan(t * channels, channels), mean) / norm : 0;
    }
  }

  static float dot(std::span<const float> a, std::span<const float> b) {
    float sum = 0;
    for (std::size_t c = 0; c < a.size(); ++c) sum += a[c] * b[c];
    return sum;
  }
};

}  // namespace

KVLAB_PLUGIN(KeyDiff)
