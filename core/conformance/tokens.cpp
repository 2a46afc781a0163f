#include "core/conformance/tokens.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>

namespace kvlab::conformance {
namespace {

// The largest number that is finite in the dtype.
float largest(Dtype dtype) {
  switch (dtype) {
    case Dtype::f16:
      return 65504.0F;
    case Dtype::bf16:
      return 0x1.FEp+127F;
    case Dtype::f32:
      break;
  }
  return std::numeric_limits<float>::max();
}

float adjusted(float normal, std::size_t index, Content content, Dtype dtype) {
  switch (content) {
    case Content::zero:
      return 0;
    case Content::outliers:
      return index % 53 == 7 ? normal * 1e4F : normal;
    case Content::tiny:
      return normal * (dtype == Dtype::f16 ? 0x1p-20F : 0x1p-140F);
    case Content::huge:
      return (normal < 0 ? -1.0F : 1.0F) * (index % 3 == 0 ? 1.0F : 0.5F) * largest(dtype);
    case Content::normal:
      break;
  }
  return normal;
}

}  // namespace

const char* name_of(Content content) {
  switch (content) {
    case Content::zero:
      return "zeros";
    case Content::outliers:
      return "N(0,1) with outliers of 1e4";
    case Content::tiny:
      return "denormal numbers";
    case Content::huge:
      return "the largest finite numbers";
    case Content::normal:
      break;
  }
  return "N(0,1)";
}

Tokens draw(Dtype dtype, std::uint64_t count, std::uint64_t channels, Content content, std::uint64_t seed) {
  Tokens tokens{dtype, count, channels, std::vector<float>(count * channels)};
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < tokens.rows.size(); ++i) tokens.rows[i] = adjusted(normal(engine), i, content, dtype);
  std::vector<std::byte> stored(tokens.rows.size() * size_of(dtype));
  from_f32(dtype, tokens.rows.data(), stored.data(), tokens.rows.size());
  to_f32(dtype, stored.data(), tokens.rows.data(), tokens.rows.size());
  return tokens;
}

StoredTokens::StoredTokens(const Tokens& tokens, std::uint64_t stride_)
    : memory(((tokens.count - 1) * stride_ + tokens.channels) * size_of(tokens.dtype), size_of(tokens.dtype)),
      dtype(tokens.dtype),
      count(tokens.count),
      channels(tokens.channels),
      stride(stride_) {
  std::memset(memory.as<std::byte>(), 0xFF, memory.size());  // NaN in each dtype
  for (std::uint64_t t = 0; t < count; ++t) {
    from_f32(dtype, tokens.rows.data() + t * channels, memory.as<std::byte>() + t * stride * size_of(dtype), channels);
  }
  memory.protect();
}

kvlab_view StoredTokens::view() const {
  return {memory.as<void>(),
          static_cast<kvlab_dtype>(dtype),
          1,
          count,
          channels,
          static_cast<std::int64_t>(count * stride),
          static_cast<std::int64_t>(stride)};
}

}  // namespace kvlab::conformance
