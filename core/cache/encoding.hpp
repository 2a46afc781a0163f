// Tokens on their way into a codec: raw rows that left the tail, or blocks of an earlier codec to be recoded.
//
// An encoding keeps what it is made from, so any thread may run it while the head goes on to grow and to be read; the
// head itself is changed by its owner's calls alone, who put what was made in the place of what it was made from:
//
//   waiting -> running -> done      run(), by a background thread or by whoever cannot wait
//                      -> failed
//   done -> in the head             install(), by the owner
//
// Forks share an encoding as they share pieces: each installs the same blocks.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <span>
#include <vector>

#include "core/cache/encoder.hpp"

namespace kvlab {

class Encoding {
 public:
  // `from`: segments of one role of a head, side by side; `positions`: of its tokens. Throws BudgetError where what
  // they will be made into has no room.
  Encoding(const Role& role, std::uint32_t kv_head, std::uint8_t rung, std::span<const Segment> from,
           const Positions& positions, Arena& arena);

  // Does the work, unless another thread does it or did.
  void run(Arena& arena, Workspace& workspace);
  // After run(): waits for that other thread.
  void wait() const;
  [[nodiscard]] bool ready() const { return state_.load(std::memory_order_acquire) >= State::done; }
  [[nodiscard]] bool failed() const { return state_.load(std::memory_order_acquire) == State::failed; }

  [[nodiscard]] std::uint64_t bound() const { return bound_; }  // bytes of its blocks, at the most
  [[nodiscard]] const Role& role() const { return role_; }
  [[nodiscard]] bool recodes() const { return from_.front().encoded; }
  // Blocks one after another, the first at 0. Only when ready; throws what went wrong.
  [[nodiscard]] const std::vector<Segment>& blocks() const;
  // The same for counting: none before they are ready, nor after a failure.
  [[nodiscard]] std::span<const Segment> made() const;

 private:
  enum class State : int { waiting, running, done, failed };

  void encode(Arena& arena, Workspace& workspace);
  [[nodiscard]] TokenRows rows(Workspace& workspace) const;
  [[nodiscard]] Positions::Range positions(std::uint64_t first) const;

  const Role& role_;
  std::uint32_t kv_head_;
  std::uint8_t rung_;
  std::uint64_t tokens_ = 0;
  std::vector<Segment> from_;
  std::uint32_t first_position_ = 0;
  std::vector<std::uint32_t> positions_;  // empty: contiguous from the first
  std::uint64_t bound_ = 0;
  Promise room_;
  std::vector<Segment> blocks_;
  std::exception_ptr failure_;
  std::atomic<State> state_{State::waiting};
};

// Puts what is ready in its place. Throws what an encoding failed with.
void install(const Role& keys, Head& head);
// All of the head's encodings, ready or not.
void settle(const Role& keys, Head& head, Arena& arena, Workspace& workspace);

}  // namespace kvlab
