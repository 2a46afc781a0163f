// The positions of the tokens that one head kept, stored once for K and V, in the smaller of two forms:
//
//   runs   first u32, count u32   for each run of neighbours   8 bytes a run
//   list   position u32           for each token               4 bytes a token
//
// A head that kept all of its tokens stores none. The stored words are the cache's memory: they are counted, and
// whoever needs positions reads them from here.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvlab {

class Positions {
 public:
  // Words that storing these takes; 0 where they are 0 .. total - 1.
  static std::uint64_t words_for(std::span<const std::uint32_t> kept, std::uint64_t total);
  // Stores `kept` into `words`, which has words_for() of room and outlives this.
  static Positions store(std::span<const std::uint32_t> kept, std::span<std::uint32_t> words);

  [[nodiscard]] std::uint64_t tokens() const { return tokens_; }

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
  std::span<const std::uint32_t> words_;
};

}  // namespace kvlab
