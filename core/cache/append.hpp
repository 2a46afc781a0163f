// Tokens that are appended: into raw chunks, and from there, one block at a time, into the codec.
#pragma once

#include <memory>
#include <vector>

#include "core/backend/backend.hpp"
#include "core/cache/layer.hpp"

namespace kvlab {

// Rows of the tokens that come, of one head.
struct NewTokens {
  TokenRows keys;
  TokenRows values;
  std::uint32_t position;  // of the first
  std::uint64_t count;
};

// What one role of a head will be after an append, decided before anything is changed.
class RoleGrowth {
 public:
  // Of `count` more tokens. `total`: that the sequence was given, with them.
  void plan(const LayoutRule& rule, const Role& role, const RoleState& state, std::uint64_t total, std::uint64_t count);
  // Padded bytes that it takes of the arena at the most.
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] const Layout& layout() const { return layout_; }

  // The chunks; `rows` are of the new tokens. Blocks are still to be made of them.
  void grow(const TokenRows& rows, Arena& arena, Promise& promise, Work& work, RoleState& state);
  // Once that work is done: lets go of what the chunks took the place of.
  void release() { old_.clear(); }

 private:
  [[nodiscard]] static bool stands(const Segment& segment, const ChunkPlace& chunk);
  void extend(Segment& segment, const ChunkPlace& chunk, Work& work) const;
  void copy(std::uint64_t first, std::uint64_t end, std::byte* to, Work& work) const;

  const Role* role_ = nullptr;
  Layout layout_;
  std::uint64_t bytes_ = 0;
  std::uint64_t before_ = 0;  // slots without the new ones
  std::size_t kept_ = 0;      // segments before the first chunk
  std::size_t standing_ = 0;  // chunks, from the first on, that are grown where they are; the others are made anew
  TokenRows rows_;
  std::vector<Segment> old_;  // those that the chunks take the place of, until their rows are copied
};

// One head's: positions and both roles.
struct HeadGrowth {
  RoleGrowth keys;
  RoleGrowth values;
  std::uint64_t bytes = 0;  // with positions and scores

  void plan(const HeadCall& call, std::uint64_t count);
  void grow(const HeadCall& call, const NewTokens& tokens, Arena& arena, Promise& promise, Work& work);
  void release() {
    keys.release();
    values.release();
  }
};

// The encodings of blocks that are due or stale, of the heads of a call: some are left to the backend's background
// thread, the others are run by finish().
class Encoder {
 public:
  // Encodings of one role of a head that may wait in the background; further ones are run at once.
  static constexpr std::size_t most_under_way = 2;

  Encoder(Arena& arena, Backend& backend, bool in_background)
      : arena_(arena), backend_(backend), in_background_(in_background) {}

  // The blocks of a layout whose chunks stand.
  void start_due(const HeadCall& call, const Role& role, const Layout& layout, Promise& promise);
  // A stretch of stale blocks of each role: whole blocks of the codec that they are recoded to. Throws BudgetError
  // where the budget has no place for old and new side by side; `head.stale` says whether more are left.
  void start_stale(const HeadCall& call);
  // All of the head's, also those in the background.
  void settle(Head& head);
  // Runs what was started or settled here, and puts what is ready in its place. Throws what an encoding failed with.
  void finish();

 private:
  bool start_stale(const HeadCall& call, const Role& role);
  void start(const HeadCall& call, const Role& role, std::uint8_t rung, std::size_t begin, std::size_t end,
             Promise promise);

  Arena& arena_;
  Backend& backend_;
  bool in_background_;
  std::vector<std::shared_ptr<Encoding>> now_;
  std::vector<Head*> heads_;  // whose encodings those are
};

}  // namespace kvlab
