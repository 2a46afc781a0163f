#include "core/backend/cpu/expand.hpp"

#include <algorithm>
#include <cstring>

#include "core/backend/cpu/blocks.hpp"

namespace kvlab::cpu {
namespace {

// Writes the kept tokens to their positions and zeros between them.
class Writer {
 public:
  Writer(const ExpandTask& task, Workspace& workspace)
      : task_(task), role_(*task.role), row_(task.role->row_bytes()), workspace_(workspace) {}

  void write() {
    for (const auto& segment : task_.segments) {
      const std::uint64_t tile = tile_tokens(role_, segment);
      for (std::uint64_t done = 0; done < segment.tokens; done += tile) {
        write_tile(segment, done, std::min(tile, segment.tokens - done));
      }
    }
    zero_to(task_.length);
  }

 private:
  void write_tile(const Segment& segment, std::uint64_t first, std::uint64_t count) {
    const std::byte* rows = segment.data + first * row_;
    if (segment.encoded) {
      float* decoded = workspace_.floats.ensure<float>(count * role_.channels);
      decode(role_, task_.kv_head, segment, task_.positions, first, count, decoded, workspace_);
      auto* rounded = workspace_.rows.ensure<std::byte>(count * row_);
      from_f32(role_.dtype, decoded, rounded, count * role_.channels);
      rows = rounded;
    }
    const auto range = task_.positions.range(segment.first + first, count, workspace_.positions);
    if (range.list == nullptr) {
      place(rows, range.first, count);
    } else {
      for (std::uint64_t t = 0; t < count; ++t) place(rows + t * row_, range.list[t], 1);
    }
  }

  void place(const std::byte* rows, std::uint64_t position, std::uint64_t count) {
    if (position >= evicted) return;
    zero_to(position);
    std::memcpy(task_.out + position * row_, rows, count * row_);
    next_ = position + count;
  }

  void zero_to(std::uint64_t position) {
    if (position > next_) std::memset(task_.out + next_ * row_, 0, (position - next_) * row_);
  }

  const ExpandTask& task_;
  const Role& role_;
  std::uint64_t row_;
  Workspace& workspace_;
  std::uint64_t next_ = 0;  // first position not yet written
};

}  // namespace

void expand(const ExpandTask& task, Workspace& workspace) { Writer(task, workspace).write(); }

}  // namespace kvlab::cpu
