// Where 16-bit integers hold queries and weights well enough, and where they do not: the bounds of README.md. A tile
// for which they do not is decoded and attended to in f32.
#pragma once

namespace quantize {

// What the rounding of a query may be expected to add to a logit. Attention's output is then off by less: the logits of
// such keys lie so far apart that few tokens weigh anything (tests/methods/precision_test.cpp).
constexpr float most_logit_error = 2e-3F;

// What the rounding of weights may be expected to add to the sum of a tile's values, relative to it (per_channel: a
// weight's rounding there is of the largest weight, and a token of little weight may have large values).
constexpr float most_sum_error = 2e-3F;

// Magnitudes that the kernels' products neither lose nor take beyond f32. False for NaN.
inline bool ordinary(float largest) { return largest == 0 || (largest >= 1e-20F && largest <= 1e25F); }

}  // namespace quantize
