#include "core/cache/present.hpp"

#include <cstring>

namespace kvlab {

TokenRows present_rows(const Role& role, const Head& head, std::uint32_t kv_head, const std::vector<Segment>& segments,
                       std::span<const std::uint32_t> slots, Buffer& rows, Workspace& workspace) {
  const std::uint64_t row_bytes = role.channels * sizeof(float);
  auto* next = rows.ensure<std::byte>(slots.size() * row_bytes);
  const TokenRows all{next, static_cast<std::int64_t>(row_bytes)};
  auto slot = slots.begin();
  for (const Segment& segment : segments) {
    const std::uint64_t end = segment.first + segment.tokens;
    if (slot == slots.end() || *slot >= end) continue;
    auto* decoded = workspace.encoded.ensure<float>(segment.tokens * role.channels);
    LayerCache::decode(role, head, kv_head, segment, segment.first, segment.tokens, decoded, workspace);
    for (; slot != slots.end() && *slot < end; ++slot) {
      std::memcpy(next, decoded + (*slot - segment.first) * role.channels, row_bytes);
      next += row_bytes;
    }
  }
  return all;
}

}  // namespace kvlab
