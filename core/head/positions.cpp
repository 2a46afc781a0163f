#include "core/head/positions.hpp"

#include <algorithm>
#include <numeric>

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

Positions::Positions(std::span<const std::uint32_t> kept, std::uint64_t total, Arena& arena, Promise& promise,
                     Work& work)
    : tokens_(kept.size()) {
  const std::uint64_t wanted = words_for(kept, total);
  if (wanted == 0) {
    form_ = kept.size() == total ? Form::all : Form::runs;
    if (form_ == Form::runs) runs_ = std::make_shared<std::vector<Run>>();
    return;
  }
  form_ = wanted == kept.size() ? Form::list : Form::runs;
  runs_ = std::make_shared<std::vector<Run>>();
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (i == 0 || kept[i] != kept[i - 1] + 1) runs_->push_back({kept[i], 0});
    ++runs_->back().count;
  }
  if (form_ == Form::list) {
    words_.write(0, kept, arena, promise, work);
  } else {
    static_assert(sizeof(Run) == 2 * sizeof(std::uint32_t));
    words_.write(0, std::span(&runs_->front().first, wanted), arena, promise, work);
  }
}

std::vector<Positions::Run>& Positions::own_runs() {
  if (runs_ == nullptr) {
    runs_ = std::make_shared<std::vector<Run>>();
  } else if (runs_.use_count() > 1) {
    runs_ = std::make_shared<std::vector<Run>>(*runs_);
  }
  return *runs_;
}

bool Positions::is_neighbour(std::uint32_t first) const {
  return runs_ != nullptr && !runs_->empty() && runs_->back().first + runs_->back().count == first;
}

// That are stored once these are appended.
std::uint64_t Positions::words_after(std::uint32_t first, std::uint64_t count) const {
  switch (form_) {
    case Form::list:
      return words_.size() + count;
    case Form::all:
      if (first == tokens_) return 0;
      return tokens_ > 0 ? 4 : 2;
    case Form::runs:
      break;
  }
  return is_neighbour(first) ? words_.size() : words_.size() + 2;
}

std::uint64_t Positions::append_needs(std::uint32_t first, std::uint64_t count) const {
  const std::uint64_t words = words_after(first, count);
  return words == 0 ? 0 : words_.needs(words);
}

void Positions::append(std::uint32_t first, std::uint64_t count, Arena& arena, Promise& promise, Work& work) {
  if (count == 0) return;
  if (form_ == Form::all && first == tokens_) {
    tokens_ += count;
    return;
  }
  std::vector<Run>& runs = own_runs();
  if (form_ == Form::all && tokens_ > 0) runs.push_back({0, static_cast<std::uint32_t>(tokens_)});
  const bool starts = form_ == Form::all;  // nothing was dropped until now
  const bool grows = is_neighbour(first);
  if (grows) {
    runs.back().count += static_cast<std::uint32_t>(count);
  } else {
    runs.push_back({first, static_cast<std::uint32_t>(count)});
  }
  if (form_ == Form::list) {
    std::vector<std::uint32_t> more(count);
    std::iota(more.begin(), more.end(), first);
    words_.write(words_.size(), std::span<const std::uint32_t>(more), arena, promise, work);
  } else {
    form_ = Form::runs;
    const std::uint64_t from = starts ? 0 : runs.size() - 1;  // of the runs that are written
    words_.write(2 * from, std::span<const std::uint32_t>(&runs[from].first, 2 * (runs.size() - from)), arena, promise,
                 work);
  }
  tokens_ += count;
}

void Positions::write_out(std::vector<std::uint32_t>& all) const {
  all.resize(tokens_);
  if (runs_ == nullptr) {
    std::iota(all.begin(), all.end(), 0U);
    return;
  }
  auto at = all.begin();
  for (const Run& run : *runs_) {
    std::iota(at, at + run.count, run.first);
    at += run.count;
  }
}

std::uint32_t Positions::slice(std::uint64_t slot, std::uint64_t count, std::vector<std::uint32_t>& list) const {
  list.clear();
  if (runs_ == nullptr) return static_cast<std::uint32_t>(slot);
  auto run = runs_->begin();
  for (; slot >= run->count; ++run) slot -= run->count;
  const auto first = run->first + static_cast<std::uint32_t>(slot);
  if (count <= run->count - slot) return first;
  list.reserve(count);
  for (; list.size() < count; ++run, slot = 0) {
    for (std::uint64_t i = slot; i < run->count && list.size() < count; ++i) {
      list.push_back(run->first + static_cast<std::uint32_t>(i));
    }
  }
  return first;
}

}  // namespace kvlab
