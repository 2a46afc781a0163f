// Blocks of known singular values: X = U S V^T with random orthonormal U and V, sigma_i = i^-decay.
#include <algorithm>
#include <cmath>

#include "core/base/vector.hpp"
#include "experiments/workloads/synthetic/generator.hpp"

namespace kvlab {
namespace {

// `count` orthonormal vectors of `size` (rows), from normal ones by Gram and Schmidt, each step done twice: once leaves
// an error that grows with the condition of the draw (Giraud, Langou, Rozloznik 2005).
std::vector<float> orthonormal(Random& random, std::size_t count, std::size_t size) {
  std::vector<float> rows(count * size);
  for (std::size_t i = 0; i < count; ++i) {
    float* row = rows.data() + i * size;
    random.normal({row, size});
    for (int twice = 0; twice < 2; ++twice) {
      for (std::size_t j = 0; j < i; ++j) {
        const float* other = rows.data() + j * size;
        add_scaled(-dot(row, other, size), other, row, size);
      }
      scale(1 / std::sqrt(dot(row, row, size)), row, size);
    }
  }
  return rows;
}

// Overwrites [n, c] rows.
void draw_block(Random& random, std::size_t n, std::size_t c, double decay, float* out) {
  const std::size_t rank = std::min(n, c);
  const std::vector<float> left = orthonormal(random, rank, n);
  const std::vector<float> right = orthonormal(random, rank, c);
  std::fill_n(out, n * c, 0.0F);
  for (std::size_t i = 0; i < rank; ++i) {
    const auto sigma = static_cast<float>(std::pow(static_cast<double>(i + 1), -decay));
    for (std::size_t t = 0; t < n; ++t) add_scaled(sigma * left[i * n + t], right.data() + i * c, out + t * c, c);
  }
}

void draw(const std::vector<kvlab_value>& parameters, HeadDraw& head) {
  const auto block = static_cast<std::size_t>(parameters[0].i);
  const double decay = parameters[1].f;
  Random random = draw_gaussian(head);
  for (const auto& tensor : {head.keys, head.values}) {
    for (std::size_t first = 0; first < head.tokens; first += block) {
      const std::size_t n = std::min<std::size_t>(block, head.tokens - first);
      draw_block(random, n, head.head_dim, decay, tensor.data() + first * head.head_dim);
    }
  }
}

}  // namespace

Generator spectrum() {
  return {"spectrum",
          "1",
          "K and V with singular values i^-decay in each block of tokens, random bases",
          "Eckart-Young, block by block",
          {integer_parameter("block", 512, 1, 1 << 20, "token", "tokens of a block"),
           real_parameter("decay", 1, 0, 16, "1", "singular value i is i^-decay")},
          draw};
}

}  // namespace kvlab
