// Positions of the tokens in a head's slots, as a backend reads them. They are stored once for keys and values, in the
// smaller of two forms, and count as index bytes:
//
//   runs   first u32, count u32   for each run of neighbours   8 bytes per run
//   list   position u32           for each token               4 bytes per token
//
// A head that kept all of its tokens stores none. A token that was evicted inside of a block keeps its slot, at a
// position from `evicted` on, where no query looks.
#pragma once

#include <cstdint>
#include <vector>

namespace kvlab {

inline constexpr std::uint64_t most_tokens = std::uint64_t{1} << 31;  // of a sequence
inline constexpr std::uint32_t evicted = std::uint32_t{1} << 31;

struct PositionsView {
  enum class Form : std::uint8_t { all, runs, list };

  Form form = Form::all;
  const std::uint32_t* words = nullptr;  // memory that the backend reads
  std::uint32_t first = 0;               // where all are there: the position in slot 0

  struct Range {
    const std::uint32_t* list;  // null: contiguous from `first`
    std::uint32_t first;
  };
  // Of the slots [slot, slot + count), count >= 1. `scratch` is used where runs must be written out. Reads `words`.
  [[nodiscard]] Range range(std::uint64_t slot, std::uint64_t count, std::vector<std::uint32_t>& scratch) const;
};

}  // namespace kvlab
