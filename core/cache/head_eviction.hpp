// The eviction of one head: what is asked of a backend, and what is done with the answers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/backend/backend.hpp"
#include "core/cache/layer.hpp"

namespace kvlab {

class HeadEviction {
 public:
  explicit HeadEviction(const HeadCall& call) : call_(call), seen_(call.total - call.head.unobserved) {}

  [[nodiscard]] Head& head() const { return call_.head; }
  [[nodiscard]] std::uint64_t seen() const { return seen_; }

  // ---- choosing: once begin(), then ask_scores() and choose() for each selector
  // --------------------------------------

  void begin();
  void ask_scores(std::size_t step, Backend& backend, Work& work);
  // The highest scores, `budget` of them at the most.
  void choose(std::uint64_t budget);

  // ---- removing
  // ------------------------------------------------------------------------------------------------------

  // Raw tokens go at once, those that some codec holds are dead at first.
  void mark();
  // What is being encoded stays so, unless it is to be compacted; where blocks are recoded cuts move.
  [[nodiscard]] bool must_settle() const;
  // Of each block of the spans that are to be compacted, without its dead.
  void ask_gathers(Promise& promise, Work& work);
  // Returns how many of these were this head's.
  std::size_t take_gathers(std::span<GatherTask> gathers);
  // The tables without what is removed.
  void rebuild(Arena& arena, Promise& promise, Work& work);

 private:
  enum class Slot : std::uint8_t { kept, dead, removed };
  struct Span {
    std::uint64_t first;
    std::uint64_t end;
  };
  struct Gathered {  // of a block
    std::uint32_t which;
    std::uint64_t first;  // its old slot
    std::size_t span;     // of compacted_
    Segment left;
  };

  [[nodiscard]] std::vector<Span> spans() const;
  [[nodiscard]] bool compacts(const Span& span) const;
  [[nodiscard]] std::uint64_t count(std::uint64_t first, std::uint64_t end, Slot what) const;
  Sources present_rows(std::uint32_t which, Work& work);
  [[nodiscard]] Source picked_of(const Segment& segment, const std::vector<std::uint32_t>& picked) const;
  void rebuild_role(std::uint32_t which, Arena& arena, Promise& promise, Work& work);
  void rebuild_scores(Arena& arena, Promise& promise, Work& work);
  void copy_left(const Role& role, std::span<const Segment> segments, std::span<const ChunkPlace> chunks, Arena& arena,
                 Promise& promise, Work& work, std::vector<Segment>& made);

  HeadCall call_;
  std::uint64_t seen_;                    // that budgets are of; after each selector those that it left
  std::vector<std::uint32_t> positions_;  // of the slots
  std::vector<std::uint32_t> kept_;       // slots
  std::vector<std::uint32_t> stay_;       // of those, by index
  std::vector<std::uint32_t> present_;    // positions of the tokens that a selector is called over
  std::vector<float> scores_;
  std::vector<std::vector<float>> all_scores_;  // per selector that keeps them: of each slot
  std::vector<Slot> slots_;
  std::vector<std::vector<std::uint32_t>> picked_;  // what tasks refer to
  std::vector<Span> compacted_;
  std::vector<Gathered> gathered_;
  std::vector<std::vector<Segment>> old_;  // tables that tasks refer to
};

}  // namespace kvlab
