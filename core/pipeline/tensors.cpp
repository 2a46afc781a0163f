#include "core/pipeline/tensors.hpp"

#include "core/base/finite.hpp"

namespace kvlab {

void to_f32(const TokenRows& rows, std::uint64_t count, std::uint64_t channels, float* out) {
  if (rows.side_by_side(channels)) {
    to_f32(rows.dtype, rows.base, out, count * channels);
    return;
  }
  for (std::uint64_t t = 0; t < count; ++t) to_f32(rows.dtype, rows.from(t).base, out + t * channels, channels);
}

bool all_finite(const TokenRows& rows, std::uint64_t count, std::uint64_t channels) {
  if (rows.side_by_side(channels)) return all_finite(rows.dtype, rows.base, count * channels);
  for (std::uint64_t t = 0; t < count; ++t) {
    if (!all_finite(rows.dtype, rows.from(t).base, channels)) return false;
  }
  return true;
}

KvTensor KvTensor::contiguous(const LayerShape& shape, std::uint32_t role, std::uint64_t sequences,
                              std::uint64_t tokens, const void* base) {
  const std::uint32_t channels = shape.head_dim(role);
  const auto head = static_cast<std::int64_t>(tokens * channels);
  return {base, shape.dtype, sequences, shape.kv_heads, tokens, channels, head * shape.kv_heads, head, channels};
}

TokenRows KvTensor::head(std::uint64_t sequence, std::uint32_t kv_head) const {
  const auto element = static_cast<std::int64_t>(size_of(dtype));
  const auto offset = static_cast<std::int64_t>(sequence) * sequence_stride + kv_head * head_stride;
  return {static_cast<const std::byte*>(base) + offset * element, token_stride * element, dtype};
}

KvTensor KvTensor::slice(std::uint64_t first, std::uint64_t count) const {
  KvTensor part = *this;
  part.base = head(0, 0).from(first).base;
  part.tokens = count;
  return part;
}

}  // namespace kvlab
