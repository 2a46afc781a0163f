// What real keys look like, in its simplest form: a few channels much larger than the others, and first tokens that
// draw attention whatever the query.
#include <algorithm>
#include <cmath>
#include <vector>

#include "experiments/workloads/synthetic/generator.hpp"

namespace kvlab {
namespace {

constexpr std::uint64_t channel_stream = 1'000'000'007;  // apart from the heads' streams

// Distinct channels, the same for all sequences of a head: outliers belong to the model.
std::vector<std::size_t> choose_channels(Random& random, std::size_t count, std::size_t head_dim) {
  std::vector<std::size_t> all(head_dim);
  for (std::size_t i = 0; i < head_dim; ++i) all[i] = i;
  count = std::min(count, head_dim);
  for (std::size_t i = 0; i < count; ++i) std::swap(all[i], all[i + random.below(head_dim - i)]);
  all.resize(count);
  return all;
}

// Queries get a common part `lift` along `direction`, sink keys one that makes their logit log P + 2 on average: the
// sinks together then hold most of the attention.
void add_sinks(HeadDraw& head, std::size_t sinks, std::span<const float> direction) {
  sinks = std::min<std::size_t>(sinks, head.tokens);
  if (sinks == 0) return;
  const double logit = std::log(static_cast<double>(head.prefill)) + 2;
  const auto lift = static_cast<float>(std::sqrt(logit / head.attention_scale));
  const auto add = [&](std::span<float> rows, std::size_t count) {
    for (std::size_t row = 0; row < count; ++row) {
      for (std::size_t c = 0; c < head.head_dim; ++c) rows[row * head.head_dim + c] += lift * direction[c];
    }
  };
  add(head.keys, sinks);
  add(head.observed, head.observed.size() / head.head_dim);
  add(head.judged, head.judged.size() / head.head_dim);
}

void draw(const std::vector<kvlab_value>& parameters, HeadDraw& head) {
  draw_gaussian(head);
  Random random(head.seed, {channel_stream, head.layer, head.kv_head});
  const auto channels = choose_channels(random, static_cast<std::size_t>(parameters[0].i), head.head_dim);
  const auto factor = static_cast<float>(parameters[1].f);
  for (std::size_t t = 0; t < head.tokens; ++t) {
    for (const std::size_t c : channels) head.keys[t * head.head_dim + c] *= factor;
  }
  std::vector<float> direction(head.head_dim);
  random_direction(random, direction);
  add_sinks(head, static_cast<std::size_t>(parameters[2].i), direction);
}

}  // namespace

Generator outlier_channels() {
  return {"outlier_channels",
          "1",
          "gaussian, with a few channels of K much larger and first tokens that draw attention",
          "per_channel scales beat per_token ones",
          {integer_parameter("channels", 4, 0, 512, "channel", "larger channels of each KV head"),
           real_parameter("scale", 8, 0, 1000, "1", "by how much they are larger"),
           integer_parameter("sinks", 4, 0, 1 << 20, "token", "first tokens that draw attention")},
          draw};
}

}  // namespace kvlab
