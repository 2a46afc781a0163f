#include "experiments/workloads/synthetic/generator.hpp"

namespace kvlab {

Generator gaussian() {
  return {"gaussian",
          "1",
          "K, V and queries independent N(0,1)",
          "the quantization error of a Gaussian source",
          {},
          [](const std::vector<kvlab_value>& /*parameters*/, HeadDraw& head) { draw_gaussian(head); }};
}

}  // namespace kvlab
