#include <algorithm>
#include <cstring>

#include "core/base/error.hpp"
#include "core/cache/cache.hpp"
#include "core/cache/input.hpp"

namespace kvlab {
namespace {

// Writes the kept tokens of one role to their positions and zeros between them.
class RoleWriter {
 public:
  RoleWriter(const Role& role, const Head& head, std::uint32_t kv_head, std::byte* out, Workspace& workspace)
      : role_(role), head_(head), kv_head_(kv_head), out_(out), workspace_(workspace) {}

  void write(const std::vector<Segment>& segments, std::uint64_t tokens) {
    for (const auto& segment : segments) {
      const std::uint64_t tile = tile_tokens(role_, segment);
      for (std::uint64_t done = 0; done < segment.tokens; done += tile) {
        write_tile(segment, segment.first + done, std::min(tile, segment.tokens - done));
      }
    }
    zero_to(tokens);
  }

 private:
  void write_tile(const Segment& segment, std::uint64_t first, std::uint64_t count) {
    const std::uint64_t row = role_.row_bytes();
    const std::byte* rows = segment.data + (first - segment.first) * row;
    if (segment.encoded) {
      float* decoded = workspace_.floats.ensure<float>(count * role_.channels);
      LayerCache::decode(role_, head_, kv_head_, segment, first, count, decoded, workspace_);
      auto* rounded = workspace_.rows.ensure<std::byte>(count * row);
      from_f32(role_.dtype, decoded, rounded, count * role_.channels);
      rows = rounded;
    }
    const auto range = head_.positions.range(first, count, workspace_.positions);
    if (range.list == nullptr) {
      place(rows, range.first, count);
    } else {
      for (std::uint64_t t = 0; t < count; ++t) place(rows + t * row, range.list[t], 1);
    }
  }

  void place(const std::byte* rows, std::uint64_t position, std::uint64_t count) {
    if (position >= evicted) return;
    zero_to(position);
    std::memcpy(out_ + position * role_.row_bytes(), rows, count * role_.row_bytes());
    next_ = position + count;
  }

  void zero_to(std::uint64_t position) {
    if (position > next_) std::memset(out_ + next_ * role_.row_bytes(), 0, (position - next_) * role_.row_bytes());
  }

  const Role& role_;
  const Head& head_;
  std::uint32_t kv_head_;
  std::byte* out_;
  Workspace& workspace_;
  std::uint64_t next_ = 0;  // first position not yet written
};

}  // namespace

void LayerCache::decompress(void* keys, void* values, ThreadPool& pool) {
  memory_->workspaces.resize(std::max(memory_->workspaces.size(), pool.threads()));
  std::vector<const Sequence*> live;
  std::uint64_t longest = 0;
  for (const auto& sequence : sequences_) {
    if (!sequence.live) continue;
    live.push_back(&sequence);
    longest = std::max(longest, sequence.tokens);
  }
  if (longest > 0 && (keys == nullptr || values == nullptr)) {
    throw InputError(of_layer(shape_.layer) + "there is nowhere to write the keys or the values (null)");
  }
  pool.parallel_for(live.size() * shape_.kv_heads, [&](std::size_t index, std::size_t thread) {
    const auto kv_head = static_cast<std::uint32_t>(index % shape_.kv_heads);
    const Head& head = live[index / shape_.kv_heads]->heads[kv_head];
    const auto write = [&](const Role& role, const std::vector<Segment>& segments, void* out) {
      auto* base = static_cast<std::byte*>(out) + index * longest * role.row_bytes();
      RoleWriter(role, head, kv_head, base, memory_->workspaces[thread]).write(segments, longest);
    };
    write(keys_, head.keys, keys);
    write(values_, head.values, values);
  });
}

}  // namespace kvlab
