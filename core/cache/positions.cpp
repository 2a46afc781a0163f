#include "core/cache/positions.hpp"

#include <algorithm>

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

Positions Positions::store(std::span<const std::uint32_t> kept, std::span<std::uint32_t> words) {
  Positions positions;
  positions.tokens_ = kept.size();
  positions.words_ = words;
  if (words.empty()) return positions;
  if (words.size() == kept.size()) {
    positions.form_ = Form::list;
    std::copy(kept.begin(), kept.end(), words.begin());
    return positions;
  }
  positions.form_ = Form::runs;
  std::size_t word = 0;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (i == 0 || kept[i] != kept[i - 1] + 1) {
      words[word] = kept[i];
      words[word + 1] = 0;
      word += 2;
    }
    ++words[word - 1];
  }
  return positions;
}

Positions::Range Positions::range(std::uint64_t first, std::uint64_t count, std::vector<std::uint32_t>& scratch) const {
  if (form_ == Form::all) return {nullptr, static_cast<std::uint32_t>(first)};
  if (form_ == Form::list) return {words_.data() + first, words_[first]};
  std::uint64_t before = 0;
  std::size_t run = 0;
  while (before + words_[run + 1] <= first) {
    before += words_[run + 1];
    run += 2;
  }
  std::uint32_t position = words_[run] + static_cast<std::uint32_t>(first - before);
  const std::uint64_t left = words_[run + 1] - (first - before);
  if (count <= left) return {nullptr, position};
  scratch.resize(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (position == words_[run] + words_[run + 1]) {
      run += 2;
      position = words_[run];
    }
    scratch[i] = position++;
  }
  return {scratch.data(), scratch.front()};
}

}  // namespace kvlab
