// From rows of tokens to segments of a head: raw rows and encoded blocks, in pieces of the arena. Prefill and append
// both write through this.
#pragma once

#include <memory>
#include <span>

#include "core/cache/role.hpp"
#include "core/cache/workspace.hpp"

namespace kvlab {

// Rows of one head's role, row t at base + t * row_step bytes.
struct TokenRows {
  const std::byte* base;
  std::int64_t row_step;

  [[nodiscard]] TokenRows from(std::uint64_t token) const {
    return {base + static_cast<std::int64_t>(token) * row_step, row_step};
  }
};

class HeadEncoder {
 public:
  // past_caches: what is written will not be found in a cache when it is read.
  HeadEncoder(const Role& role, std::uint32_t kv_head, Arena& arena, Workspace& workspace, bool past_caches)
      : role_(role), kv_head_(kv_head), arena_(arena), workspace_(workspace), past_caches_(past_caches) {}

  // Tokens [first, first + count) of the head's kept ones as a raw segment with room for that many, >= count.
  Segment raw(const TokenRows& rows, std::uint64_t first, std::uint64_t count, std::uint64_t room) const;
  // The same in two steps: the segment, and then its rows from `token` of it on.
  [[nodiscard]] Segment open(std::uint64_t first, std::uint64_t count, std::uint64_t room) const;
  void fill(const Segment& segment, std::uint64_t token, const TokenRows& rows, std::uint64_t count) const;
  // The same as a block of that rung's codec; `positions`: theirs. The memory is out of `room`, where given.
  Segment block(std::uint8_t rung, const TokenRows& rows, const Positions::Range& positions, std::uint64_t first,
                std::uint64_t count, Promise* room = nullptr) const;
  // What is left of an encoded segment: tokens keep[] of it. False where the codec cannot.
  bool gather(const Segment& segment, const kvlab_block& block, std::span<const std::uint32_t> keep,
              Segment& out) const;
  // Adds tokens to a raw segment that has the room; a shared piece is copied first.
  void extend(Segment& segment, const TokenRows& rows, std::uint64_t count) const;

 private:
  [[nodiscard]] Segment put(const kvlab_encode_out& out, std::uint8_t rung, std::uint64_t first, std::uint64_t count,
                            Promise* room) const;
  [[nodiscard]] std::shared_ptr<Piece> allocate(std::uint64_t bytes, Promise* room) const;
  static Segment segment_of(const kvlab_encode_out& out, std::uint8_t rung, std::uint64_t first, std::uint64_t count,
                            std::shared_ptr<Piece> piece);
  void copy_rows(std::byte* to, const TokenRows& rows, std::uint64_t count) const;
  void copy(std::byte* to, const std::byte* from, std::uint64_t bytes) const;

  const Role& role_;
  std::uint32_t kv_head_;
  Arena& arena_;
  Workspace& workspace_;
  bool past_caches_;
};

// Rows that a raw chunk holds which starts `offset` tokens after a cut, where blocks of `block` tokens are cut: never
// beyond the next cut. 0: no blocks are.
std::uint64_t chunk_rows(std::uint64_t block, std::uint64_t offset);

}  // namespace kvlab
