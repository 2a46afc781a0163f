// Rows of tokens that a method is given: as f32, and in the layer's dtype in guarded memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/dtype.hpp"
#include "core/conformance/guarded.hpp"

namespace kvlab::conformance {

enum class Content { normal, zero, outliers, tiny, huge };
inline constexpr Content all_contents[] = {Content::normal, Content::zero, Content::outliers, Content::tiny,
                                           Content::huge};
// "N(0,1)", "zeros", "N(0,1) with outliers of 1e4", "denormal numbers", "the largest finite numbers"
const char* name_of(Content content);

struct Tokens {
  Dtype dtype;
  std::uint64_t count;
  std::uint64_t channels;
  std::vector<float> rows;  // as they are in the dtype

  [[nodiscard]] std::vector<float> row(std::uint64_t token) const {
    const auto first = rows.begin() + static_cast<std::ptrdiff_t>(token * channels);
    return {first, first + static_cast<std::ptrdiff_t>(channels)};
  }
};

Tokens draw(Dtype dtype, std::uint64_t count, std::uint64_t channels, Content content = Content::normal,
            std::uint64_t seed = 1);

// These tokens as a method gets them, `stride` elements apart: aligned to their element, read only, what lies between
// the rows is NaN.
struct StoredTokens {
  StoredTokens(const Tokens& tokens, std::uint64_t stride);
  [[nodiscard]] kvlab_view view() const;

  Guarded memory;
  Dtype dtype;
  std::uint64_t count;
  std::uint64_t channels;
  std::uint64_t stride;
};

}  // namespace kvlab::conformance
