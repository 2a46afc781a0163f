#include "core/cache/positions.hpp"

#include <algorithm>
#include <array>

namespace kvlab {
namespace {

std::uint64_t count_runs(std::span<const std::uint32_t> kept) {
  std::uint64_t runs = kept.empty() ? 0 : 1;
  for (std::size_t i = 1; i < kept.size(); ++i) runs += kept[i] != kept[i - 1] + 1 ? 1 : 0;
  return runs;
}

}  // namespace

std::uint64_t Positions::words_for(std::span<const std::uint32_t> kept, std::uint64_t total) {
  if (kept.size() == total) return 0;
  return std::min<std::uint64_t>(kept.size(), 2 * count_runs(kept));
}

Positions::Positions(std::span<const std::uint32_t> kept, std::uint64_t total, Arena& arena) : tokens_(kept.size()) {
  if (kept.size() == total) return;
  const std::uint64_t wanted = words_for(kept, total);
  form_ = wanted == kept.size() ? Form::list : Form::runs;
  if (wanted == 0) {
    form_ = Form::runs;
    return;
  }
  grow(wanted, arena);
  if (form_ == Form::list) {
    std::copy(kept.begin(), kept.end(), words());
    return;
  }
  std::uint32_t* word = words();
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (i == 0 || kept[i] != kept[i - 1] + 1) {
      word[0] = kept[i];
      word[1] = 0;
      word += 2;
    }
    ++word[-1];
  }
}

// Room for that many words, of this object alone; the contents stay.
void Positions::grow(std::uint64_t wanted, Arena& arena) {
  const std::uint64_t bytes = wanted * sizeof(std::uint32_t);
  if (wanted == 0) return;
  if (piece_ == nullptr || piece_.use_count() > 1 || bytes > piece_->capacity()) {
    const std::uint64_t old = words_ * sizeof(std::uint32_t);
    auto larger = arena.allocate(old == 0 ? bytes : std::max(bytes, old + old / 2), bytes);
    if (old > 0) std::copy_n(words(), words_, reinterpret_cast<std::uint32_t*>(larger->data()));
    piece_ = std::move(larger);
  } else {
    piece_->use(bytes);
  }
  words_ = wanted;
}

void Positions::append(std::uint32_t first, std::uint64_t count, Arena& arena) {
  if (count == 0) return;
  if (form_ == Form::all && first != tokens_) {  // nothing was dropped until now
    form_ = Form::runs;
    if (tokens_ > 0) {
      grow(2, arena);
      words()[0] = 0;
      words()[1] = static_cast<std::uint32_t>(tokens_);
    }
  }
  if (form_ == Form::list) {
    const std::uint64_t before = words_;
    grow(words_ + count, arena);
    for (std::uint64_t i = 0; i < count; ++i) words()[before + i] = first + static_cast<std::uint32_t>(i);
  } else if (form_ == Form::runs) {
    const bool neighbour = words_ > 0 && words()[words_ - 2] + words()[words_ - 1] == first;
    if (neighbour) {
      grow(words_, arena);  // of this object alone
      words()[words_ - 1] += static_cast<std::uint32_t>(count);
    } else {
      grow(words_ + 2, arena);
      words()[words_ - 2] = first;
      words()[words_ - 1] = static_cast<std::uint32_t>(count);
    }
  }
  tokens_ += count;
}

Positions::Range Positions::range(std::uint64_t first, std::uint64_t count, std::vector<std::uint32_t>& scratch) const {
  if (form_ == Form::all) return {nullptr, static_cast<std::uint32_t>(first)};
  const std::uint32_t* stored = words();
  if (form_ == Form::list) return {stored + first, stored[first]};
  std::uint64_t before = 0;
  std::size_t run = 0;
  while (before + stored[run + 1] <= first) {
    before += stored[run + 1];
    run += 2;
  }
  std::uint32_t position = stored[run] + static_cast<std::uint32_t>(first - before);
  const std::uint64_t left = stored[run + 1] - (first - before);
  if (count <= left) return {nullptr, position};
  scratch.resize(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (position == stored[run] + stored[run + 1]) {
      run += 2;
      position = stored[run];
    }
    scratch[i] = position++;
  }
  return {scratch.data(), scratch.front()};
}

}  // namespace kvlab
