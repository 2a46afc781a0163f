#include "core/cache/head_eviction.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace kvlab {

// ---- choosing ------------------------------------------------------------------------------------------------------

void HeadEviction::begin() {
  call_.head.positions.write_out(positions_);
  for (std::uint32_t slot = 0; slot < positions_.size(); ++slot) {
    if (positions_[slot] < evicted) kept_.push_back(slot);
  }
  all_scores_.resize(call_.layer.selectors.size());
}

void HeadEviction::ask_scores(std::size_t step, Backend& backend, Work& work) {
  const SelectorInstance& selector = call_.layer.selectors[step];
  scores_.resize(kept_.size());
  if (selector.keeps_scores()) {
    const BackendArray<float>& stored = call_.head.scores[step];
    auto& all = all_scores_[step];
    all.resize(stored.size());
    backend.read(reinterpret_cast<const std::byte*>(stored.data()), all.data(), all.size() * sizeof(float));
    for (std::size_t i = 0; i < kept_.size(); ++i) scores_[i] = all[kept_[i]];
    return;
  }
  present_.clear();
  for (const std::uint32_t slot : kept_) present_.push_back(positions_[slot]);
  ScoreTask task;
  task.selector = &selector;
  task.dtype = Dtype::f32;
  task.sequence = call_.sequence;
  task.kv_head = call_.kv_head;
  task.positions = present_.data();
  task.tokens = present_.size();
  task.keys_role = &call_.layer.keys;
  task.values_role = &call_.layer.values;
  if ((selector.reads() & KVLAB_READS_KEYS) != 0) task.keys = present_rows(KVLAB_ROLE_KEYS, work);
  if ((selector.reads() & KVLAB_READS_VALUES) != 0) task.values = present_rows(KVLAB_ROLE_VALUES, work);
  task.out = scores_.data();
  work.scores.push_back(task);
}

// Of the kept slots: raw rows exact, those of blocks as their codec decodes them.
Sources HeadEviction::present_rows(std::uint32_t which, Work& work) {
  Sources sources{work.sources.size(), 0};
  auto slot = kept_.begin();
  for (const Segment& segment : call_.head.of(which).segments) {
    auto& picked = picked_.emplace_back();
    for (; slot != kept_.end() && *slot < segment.end(); ++slot) {
      picked.push_back(*slot - static_cast<std::uint32_t>(segment.first));
    }
    if (picked.empty()) continue;
    work.sources.push_back(picked_of(segment, picked));
    ++sources.count;
  }
  return sources;
}

Source HeadEviction::picked_of(const Segment& segment, const std::vector<std::uint32_t>& picked) const {
  Source source;
  source.block = &segment;
  source.positions = call_.head.positions.view();
  source.slot = segment.first;
  source.kv_head = call_.kv_head;
  source.count = picked.size();
  source.picked = picked.data();
  return source;
}

void HeadEviction::choose(std::uint64_t budget) {
  const Pipeline& pipeline = call_.layer.pipeline;
  seen_ = budget;
  select_highest(scores_, pipeline.sinks, pipeline.tail, std::min<std::uint64_t>(budget, kept_.size()), stay_);
  for (auto& index : stay_) index = kept_[index];
  std::swap(kept_, stay_);
  picked_.clear();
}

// ---- removing ------------------------------------------------------------------------------------------------------

void HeadEviction::mark() {
  std::uint64_t raw_from = 0;
  for (const std::uint32_t which : both_roles) {
    if (call_.layer.role(which).coded()) raw_from = std::max(raw_from, call_.head.of(which).cut);
  }
  slots_.assign(positions_.size(), Slot::dead);
  for (const std::uint32_t slot : kept_) slots_[slot] = Slot::kept;
  for (std::uint64_t slot = raw_from; slot < slots_.size(); ++slot) {
    if (slots_[slot] == Slot::dead) slots_[slot] = Slot::removed;
  }
}

std::uint64_t HeadEviction::count(std::uint64_t first, std::uint64_t end, Slot what) const {
  return static_cast<std::uint64_t>(std::count(slots_.begin() + static_cast<std::ptrdiff_t>(first),
                                               slots_.begin() + static_cast<std::ptrdiff_t>(end), what));
}

std::vector<HeadEviction::Span> HeadEviction::spans() const {
  const auto cuts_of = [&](std::uint32_t which) {
    const RoleState& state = call_.head.of(which);
    std::vector<std::uint64_t> all;
    for (std::size_t i = 0; i < state.segments.size(); ++i) {
      const Segment& segment = state.segments[i];
      if (segment.first >= state.cut) continue;
      // The chunks of a block that is being encoded have no cut between them.
      const bool goes_on = segment.encoding != nullptr && i + 1 < state.segments.size() &&
                           state.segments[i + 1].encoding == segment.encoding;
      if (!goes_on) all.push_back(segment.end());
    }
    return all;
  };
  std::vector<std::uint64_t> common;
  bool first_role = true;
  for (const std::uint32_t which : both_roles) {
    if (!call_.layer.role(which).coded()) continue;
    std::vector<std::uint64_t> cuts = cuts_of(which);
    if (!first_role) {
      std::vector<std::uint64_t> both;
      std::set_intersection(common.begin(), common.end(), cuts.begin(), cuts.end(), std::back_inserter(both));
      cuts = std::move(both);
    }
    common = std::move(cuts);
    first_role = false;
  }
  std::vector<Span> spans;
  std::uint64_t first = 0;
  for (const std::uint64_t end : common) spans.push_back({std::exchange(first, end), end});
  return spans;
}

bool HeadEviction::compacts(const Span& span) const {
  const std::uint64_t dead = count(span.first, span.end, Slot::dead);
  return dead > 0 && 2 * dead >= span.end - span.first;
}

bool HeadEviction::must_settle() const {
  const auto& encodings = call_.head.encodings;
  if (encodings.empty()) return false;
  if (std::any_of(encodings.begin(), encodings.end(), [](const auto& e) { return e->recodes(); })) return true;
  const std::vector<Span> all = spans();
  return std::any_of(all.begin(), all.end(), [&](const Span& span) {
    return compacts(span) && std::any_of(both_roles.begin(), both_roles.end(), [&](std::uint32_t which) {
             const auto& segments = call_.head.of(which).segments;
             return std::any_of(segments.begin(), segments.end(), [&](const Segment& s) {
               return s.encoding != nullptr && s.first >= span.first && s.first < span.end;
             });
           });
  });
}

void HeadEviction::ask_gathers(Promise& promise, Work& work) {
  for (const Span& span : spans()) {
    if (!compacts(span)) continue;
    compacted_.push_back(span);
    for (const std::uint32_t which : both_roles) {
      const Role& role = call_.layer.role(which);
      for (const Segment& segment : call_.head.of(which).segments) {
        if (!segment.encoded || segment.first < span.first || segment.first >= span.end) continue;
        const std::uint64_t left = count(segment.first, segment.end(), Slot::kept);
        if (left == 0 || left == segment.tokens) continue;
        auto& picked = picked_.emplace_back();
        for (std::uint64_t t = 0; t < segment.tokens; ++t) {
          if (slots_[segment.first + t] == Slot::kept) picked.push_back(static_cast<std::uint32_t>(t));
        }
        GatherTask task;
        task.role = &role;
        task.source = work.sources.size();
        task.promise = &promise;
        work.sources.push_back(picked_of(segment, picked));
        work.gathers.push_back(std::move(task));
        gathered_.push_back({which, segment.first, compacted_.size() - 1, {}});
      }
    }
  }
}

// A span of which one block could not be gathered stays as it is.
std::size_t HeadEviction::take_gathers(std::span<GatherTask> gathers) {
  std::vector<bool> stays(compacted_.size(), false);
  for (std::size_t i = 0; i < gathered_.size(); ++i) {
    if (gathers[i].refused) stays[gathered_[i].span] = true;
    gathered_[i].left = std::move(gathers[i].made);
  }
  for (std::size_t i = 0; i < compacted_.size(); ++i) {
    if (stays[i]) continue;
    for (std::uint64_t slot = compacted_[i].first; slot < compacted_[i].end; ++slot) {
      if (slots_[slot] == Slot::dead) slots_[slot] = Slot::removed;
    }
  }
  return gathered_.size();
}

void HeadEviction::rebuild(Arena& arena, Promise& promise, Work& work) {
  picked_.clear();
  for (const std::uint32_t which : both_roles) rebuild_role(which, arena, promise, work);
  rebuild_scores(arena, promise, work);
  gathered_.clear();
  Head& head = call_.head;
  std::vector<std::uint32_t> left;
  head.dead = 0;
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot] == Slot::removed) continue;
    left.push_back(slots_[slot] == Slot::kept ? positions_[slot] : evicted + static_cast<std::uint32_t>(head.dead));
    head.dead += slots_[slot] == Slot::dead ? 1 : 0;
  }
  // Never all: some position was dropped.
  head.positions = Positions(left, std::uint64_t{1} << 32, arena, promise, work);
}

void HeadEviction::rebuild_scores(Arena& arena, Promise& promise, Work& work) {
  for (std::size_t step = 0; step < call_.head.scores.size(); ++step) {
    if (call_.head.scores[step].size() == 0) continue;
    std::vector<float> left;
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      if (slots_[slot] != Slot::removed) left.push_back(all_scores_[step][slot]);
    }
    call_.head.scores[step].write(0, std::span<const float>(left), arena, promise, work);
  }
}

// The rows that are left of raw segments, side by side, into chunks.
void HeadEviction::copy_left(const Role& role, std::span<const Segment> segments, std::span<const ChunkPlace> chunks,
                             Arena& arena, Promise& promise, Work& work, std::vector<Segment>& made) {
  auto segment = segments.begin();
  std::uint64_t t = 0;  // of the segment
  for (const ChunkPlace& chunk : chunks) {
    made.push_back(open_chunk(role, chunk, arena, promise));
    std::byte* to = made.back().piece->data();
    for (std::uint64_t done = 0; done < chunk.tokens;) {
      auto& picked = picked_.emplace_back();
      for (; t < segment->tokens && done + picked.size() < chunk.tokens; ++t) {
        if (slots_[segment->first + t] != Slot::removed) picked.push_back(static_cast<std::uint32_t>(t));
      }
      if (!picked.empty()) {
        Source source;
        source.block = &*segment;
        source.count = picked.size();
        source.picked = picked.data();
        work.copies.push_back({&role, work.sources.size(), to + done * role.row_bytes(), false, {}});
        work.sources.push_back(source);
        done += picked.size();
      }
      if (t == segment->tokens && done < chunk.tokens) {
        ++segment;
        t = 0;
      }
    }
  }
}

void HeadEviction::rebuild_role(std::uint32_t which, Arena& arena, Promise& promise, Work& work) {
  const Role& role = call_.layer.role(which);
  RoleState& state = call_.head.of(which);
  old_.push_back(std::move(state.segments));
  const std::vector<Segment>& segments = old_.back();
  std::vector<Segment> left;
  std::uint64_t next = 0;
  const auto put = [&](Segment segment) {
    segment.first = next;
    next += segment.tokens;
    left.push_back(std::move(segment));
  };
  // Raw tokens behind the cut are laid out anew, so that the next block is cut where it would be.
  const std::uint64_t start = std::max(state.cut, call_.layer.pipeline.sinks);
  const auto tail = std::find_if(segments.begin(), segments.end(),
                                 [&](const Segment& s) { return role.coded() && !s.encoded && s.first >= start; });
  for (auto segment = segments.begin(); segment != tail; ++segment) {
    const std::uint64_t removed = count(segment->first, segment->end(), Slot::removed);
    if (removed == segment->tokens && segment->tokens > 0) continue;
    if (removed == 0) {
      put(*segment);
    } else if (segment->encoded) {
      put(std::move(std::find_if(gathered_.begin(), gathered_.end(), [&](const Gathered& g) {
                      return g.which == which && g.first == segment->first;
                    })->left));
    } else {
      const std::uint64_t tokens = segment->tokens - removed;
      const ChunkPlace chunk{next, tokens, tokens};
      copy_left(role, {&*segment, 1}, {&chunk, 1}, arena, promise, work, left);
      next += tokens;
    }
  }
  if (role.coded()) state.cut -= count(0, std::min<std::uint64_t>(state.cut, slots_.size()), Slot::removed);
  const auto behind = std::span(segments).subspan(static_cast<std::size_t>(tail - segments.begin()));
  const std::uint64_t first = behind.empty() ? slots_.size() : behind.front().first;
  const std::uint64_t removed = count(first, slots_.size(), Slot::removed);
  if (removed == 0) {
    for (const Segment& segment : behind) put(segment);
  } else {
    Layout layout;
    growth_layout(call_.layer.layout_rule(role, call_.rule), state.cut, next, next + slots_.size() - first - removed,
                  call_.total, layout);
    copy_left(role, behind, layout.chunks, arena, promise, work, left);
  }
  state.segments = std::move(left);
}

}  // namespace kvlab
