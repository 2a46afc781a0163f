#include "core/backend/positions_view.hpp"

namespace kvlab {

PositionsView::Range PositionsView::range(std::uint64_t slot, std::uint64_t count,
                                          std::vector<std::uint32_t>& scratch) const {
  if (form == Form::all) return {nullptr, first + static_cast<std::uint32_t>(slot)};
  if (form == Form::list) return {words + slot, words[slot]};
  std::uint64_t before = 0;
  std::size_t run = 0;
  while (before + words[run + 1] <= slot) {
    before += words[run + 1];
    run += 2;
  }
  std::uint32_t position = words[run] + static_cast<std::uint32_t>(slot - before);
  const std::uint64_t left = words[run + 1] - (slot - before);
  if (count <= left) return {nullptr, position};
  scratch.resize(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (position == words[run] + words[run + 1]) {
      run += 2;
      position = words[run];
    }
    scratch[i] = position++;
  }
  return {scratch.data(), scratch.front()};
}

}  // namespace kvlab
