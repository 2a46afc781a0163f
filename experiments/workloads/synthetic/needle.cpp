// One token per sequence that the judged queries are about. Its logit is log P + 8 for each of them, so that it holds
// all but about e^-8 of the attention; no observed query points at it.
#include <cmath>
#include <vector>

#include "core/base/vector.hpp"
#include "experiments/workloads/synthetic/generator.hpp"

namespace kvlab {
namespace {

constexpr std::uint64_t position_stream = 2'000'000'011;  // one position per sequence, whatever layer and head

void draw(const std::vector<kvlab_value>& /*parameters*/, HeadDraw& head) {
  Random random = draw_gaussian(head);
  const std::size_t d = head.head_dim;
  std::vector<float> direction(d);
  random_direction(random, direction);

  Random where(head.seed, {position_stream, head.sequence});
  float* key = head.keys.data() + where.below(head.prefill) * d;
  const auto norm = std::sqrt(static_cast<float>(d));  // as long as the other keys
  for (std::size_t c = 0; c < d; ++c) key[c] = norm * direction[c];

  const double logit = std::log(static_cast<double>(head.prefill)) + 8;
  const auto along = static_cast<float>(logit / (head.attention_scale * norm));
  for (std::size_t first = 0; first < head.judged.size(); first += d) {
    float* query = head.judged.data() + first;
    add_scaled(along - dot(query, direction.data(), d), direction.data(), query, d);
  }
}

}  // namespace

Generator needle() {
  return {"needle",
          "1",
          "gaussian, with one token per sequence that the judged queries are about",
          "a selector keeps it or not: output_error near 0 or near 1",
          {},
          draw};
}

}  // namespace kvlab
