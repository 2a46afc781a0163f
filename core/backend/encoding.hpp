// Tokens on their way into a codec: raw rows that left the tail, or blocks of an earlier codec that are recoded.
//
// An encoding owns what it is made from (shared pieces of memory, positions, a part of the budget), so any thread may
// run it while the head goes on to grow and to be read. The head itself is changed by its owner's calls alone: they put
// what was made in the place of what it was made from.
//
//   waiting -> running -> done      run(), in the background thread or in a call that cannot wait
//                      -> failed
//   done -> in the head             install() (core/head/head.hpp), in a call of the owner
//
// Forks share an encoding as they share pieces: each installs the same blocks.
//
// Threads: run(), wait(), ready(), failed() and made() from any; blocks() once ready(). No lock: the state is atomic,
// and what run() writes is read after it.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/backend/work.hpp"

namespace kvlab {

class Encoding {
 public:
  // `from`: segments of one role of a head, side by side. `positions`: of their tokens; empty: contiguous from
  // `first_position`. `promise`: for the blocks at their bounds, padded. `role` outlives this.
  Encoding(const Role& role, std::uint32_t kv_head, std::uint8_t rung, std::span<const Segment> from,
           std::vector<std::uint32_t> positions, std::uint32_t first_position, Promise promise);
  Encoding(const Encoding&) = delete;
  Encoding& operator=(const Encoding&) = delete;

  // Does the work, unless another thread does it or did: encode(task, all of this one's sources) for each block.
  using Encode = std::function<void(EncodeTask& task, const Work& work)>;
  void run(const Encode& encode);
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

  void add_block(std::uint8_t rung, std::uint32_t kv_head, std::uint64_t first, std::uint64_t count);

  const Role& role_;
  std::vector<Segment> from_;
  std::vector<std::uint32_t> positions_;
  PositionsView view_;  // of the tokens, from 0
  std::uint64_t bound_ = 0;
  Promise promise_;
  Work work_;  // sources and encodes
  std::vector<Segment> blocks_;
  std::exception_ptr failure_;
  std::atomic<State> state_{State::waiting};
};

}  // namespace kvlab
