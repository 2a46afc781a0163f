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
  const std::uint64_t runs = count_runs(kept);
  if (kept.size() == total && (total == 0 || (runs == 1 && kept.front() == 0))) return 0;
  return std::min<std::uint64_t>(kept.size(), 2 * runs);
}

Positions::Positions(std::span<const std::uint32_t> kept, std::uint64_t total, Arena& arena) : tokens_(kept.size()) {
  const std::uint64_t wanted = words_for(kept, total);
  if (wanted == 0) {
    form_ = kept.size() == total ? Form::all : Form::runs;
    return;
  }
  form_ = wanted == kept.size() ? Form::list : Form::runs;
  std::uint32_t* word = words_.resize(wanted, arena);
  if (form_ == Form::list) {
    std::copy(kept.begin(), kept.end(), word);
    return;
  }
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (i == 0 || kept[i] != kept[i - 1] + 1) {
      word[0] = kept[i];
      word[1] = 0;
      word += 2;
    }
    ++word[-1];
  }
}

void Positions::append(std::uint32_t first, std::uint64_t count, Arena& arena) {
  if (count == 0) return;
  const std::uint64_t before = words_.size();
  if (form_ == Form::all && first != tokens_) {  // nothing was dropped until now
    form_ = Form::runs;
    if (tokens_ > 0) {
      std::uint32_t* word = words_.resize(2, arena);
      word[0] = 0;
      word[1] = static_cast<std::uint32_t>(tokens_);
    }
    append(first, count, arena);
    return;
  }
  if (form_ == Form::list) {
    std::uint32_t* word = words_.resize(before + count, arena) + before;
    for (std::uint64_t i = 0; i < count; ++i) word[i] = first + static_cast<std::uint32_t>(i);
  } else if (form_ == Form::runs) {
    const bool neighbour = before > 0 && words_.data()[before - 2] + words_.data()[before - 1] == first;
    std::uint32_t* word = words_.resize(neighbour ? before : before + 2, arena);
    if (neighbour) {
      word[before - 1] += static_cast<std::uint32_t>(count);
    } else {
      word[before] = first;
      word[before + 1] = static_cast<std::uint32_t>(count);
    }
  }
  tokens_ += count;
}

void Positions::write_out(std::vector<std::uint32_t>& all) const {
  if (tokens_ == 0) {
    all.clear();
    return;
  }
  const Range whole = range(0, tokens_, all);
  if (whole.list != nullptr && whole.list == all.data()) return;  // written there already
  all.resize(tokens_);
  for (std::uint64_t i = 0; i < tokens_; ++i) {
    all[i] = whole.list != nullptr ? whole.list[i] : whole.first + static_cast<std::uint32_t>(i);
  }
}

Positions::Range Positions::range(std::uint64_t first, std::uint64_t count, std::vector<std::uint32_t>& scratch) const {
  if (form_ == Form::all) return {nullptr, static_cast<std::uint32_t>(first)};
  const std::uint32_t* stored = words_.data();
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
