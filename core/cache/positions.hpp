// The positions of the tokens that one head kept, stored once for K and V, in the smaller of two forms:
//
//   runs   first u32, count u32   for each run of neighbours   8 bytes a run
//   list   position u32           for each token               4 bytes a token
//
// A head that kept all of its tokens stores none. A token that was evicted inside of a block stays in its place, at a
// position from `evicted` on, where no query looks. The stored words are the cache's memory: they are counted, and
// whoever needs positions reads them from here. Copies share the words until one of them grows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/arena_array.hpp"

namespace kvlab {

inline constexpr std::uint64_t most_tokens = std::uint64_t{1} << 31;  // of a sequence
inline constexpr std::uint32_t evicted = std::uint32_t{1} << 31;

class Positions {
 public:
  Positions() = default;
  // `kept` of 0 .. total - 1, ascending but for evicted ones.
  Positions(std::span<const std::uint32_t> kept, std::uint64_t total, Arena& arena);
  // Words that storing these takes; 0 where they are 0 .. total - 1.
  static std::uint64_t words_for(std::span<const std::uint32_t> kept, std::uint64_t total);

  // The neighbours first .. first + count - 1, beyond all that are there.
  void append(std::uint32_t first, std::uint64_t count, Arena& arena);

  [[nodiscard]] std::uint64_t tokens() const { return tokens_; }
  [[nodiscard]] const std::shared_ptr<Piece>& piece() const { return words_.piece(); }  // null where none is stored
  void write_out(std::vector<std::uint32_t>& all) const;

  struct Range {
    const std::uint32_t* list;  // null: contiguous from `first`
    std::uint32_t first;
  };
  // Of the kept tokens [first, first + count), count >= 1. `scratch` is used where runs must be written out.
  [[nodiscard]] Range range(std::uint64_t first, std::uint64_t count, std::vector<std::uint32_t>& scratch) const;

 private:
  enum class Form { all, runs, list };
  std::uint64_t tokens_ = 0;
  Form form_ = Form::all;
  ArenaArray<std::uint32_t> words_;
};

}  // namespace kvlab
