// The plain baseline computes what the cache's attention does: only its time is another.
#include "experiments/measure/plain.hpp"

#include <gtest/gtest.h>

#include "tests/support/support.hpp"

namespace kvlab {
namespace {

TEST(PlainAttention, GivesTheSameOutputs) {
  Pipeline kivi;
  kivi.sinks = 3;
  kivi.tail = 20;
  kivi.keys = test::spec("quantize", {{"bits", "4"}, {"scales", "per_channel"}});
  kivi.values = test::spec("low_rank", {{"rank", "8"}});
  for (const Pipeline& pipeline : {Pipeline{}, kivi}) {
    const test::Data data(test::shape(2, 2, 6, 32, Dtype::bf16), 500, 1);
    LayerCache cache(pipeline, data.shape, test::memory());
    cache.prefill(data.prefill());
    std::vector<float> expected(2 * 6 * 32);
    std::vector<float> got(expected.size());
    cache.attend(data.judged(), expected.data());
    PlainAttention(pipeline, data.shape).attend(cache, data.judged_rows.data(), got.data());
    EXPECT_LT(test::relative(got, expected), test::attention_tolerance);
  }
}

}  // namespace
}  // namespace kvlab
