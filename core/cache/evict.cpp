#include "core/cache/evict.hpp"

#include <algorithm>
#include <cstring>

#include "core/cache/blocks.hpp"
#include "core/cache/encoding.hpp"
#include "core/cache/present.hpp"
#include "core/cache/select.hpp"

namespace kvlab {

std::uint64_t eviction_step(const Role& keys, const Role& values) {
  std::uint64_t step = 1;
  for (const Role* role : {&keys, &values}) {
    if (!role->coded()) step = std::max(step, std::uint64_t{128});
    for (const auto& codec : role->codecs) step = std::max(step, codec.traits().block_tokens);
  }
  return step;
}

std::uint64_t eviction_capacity(const Role& keys, const Role& values, const Head& head) {
  std::uint64_t bytes = Arena::padded(head.positions.tokens() * sizeof(std::uint32_t));
  for (const auto& [role, segments] : {std::pair{&keys, &head.keys}, std::pair{&values, &head.values}}) {
    for (const auto& segment : *segments) bytes += segment.piece->capacity();
    bytes += Arena::padded(chunk_rows(0, 0) * role->row_bytes());
  }
  for (const auto& scores : head.scores) bytes += Arena::padded(scores.size() * sizeof(float));
  return bytes;
}

void HeadEvict::run(std::uint64_t total, Head& head) {
  if (selectors_.empty()) return;
  total_ = total;
  const std::uint64_t seen = total - head.unobserved;
  std::uint64_t budget = seen;
  for (std::size_t step = 0; step < selectors_.size(); ++step) {
    if (selectors_[step].scope() != KVLAB_SCOPE_OBSERVED) budget = of_budget(pipeline_.select[step].budget, budget);
  }
  if (head.kept() < budget + eviction_step(keys_, values_)) return;
  if (reads_rows()) settle(keys_, head, arena_, workspace_);
  choose(seen, head);
  mark(head);
  if (must_settle(head)) settle(keys_, head, arena_, workspace_);
  remove_cells(head);
  rebuild(head);
}

// Sinks and tail stay whatever the budget: a short sequence may have one below them.
std::uint64_t HeadEvict::of_budget(const Budget& budget, std::uint64_t present) const {
  return std::max(budget.of(present), std::min(present, pipeline_.sinks + pipeline_.tail));
}

// What is read must not depend on how far a thread has come with a block.
bool HeadEvict::reads_rows() const {
  return std::any_of(selectors_.begin(), selectors_.end(),
                     [](const auto& s) { return s.scope() == KVLAB_SCOPE_PRESENT && s.reads() != 0; });
}

// Which slots stay: workspace_.kept. `seen`: tokens that the budgets are of.
void HeadEvict::choose(std::uint64_t seen, const Head& head) {
  head.positions.write_out(positions_);
  auto& kept = workspace_.kept;
  kept.clear();
  for (std::uint32_t slot = 0; slot < positions_.size(); ++slot) {
    if (positions_[slot] < evicted) kept.push_back(slot);
  }
  for (std::size_t step = 0; step < selectors_.size(); ++step) {
    if (selectors_[step].scope() == KVLAB_SCOPE_OBSERVED) continue;
    seen = of_budget(pipeline_.select[step].budget, seen);
    auto& stay = workspace_.survivors;
    select_highest(scores_of(step, head), pipeline_.sinks, pipeline_.tail, std::min<std::uint64_t>(seen, kept.size()),
                   stay);
    for (auto& index : stay) index = kept[index];
    std::swap(kept, stay);
  }
}

// Scores of the slots in workspace_.kept, in the workspace's floats.
std::span<const float> HeadEvict::scores_of(std::size_t step, const Head& head) {
  const SelectorInstance& selector = selectors_[step];
  const auto& kept = workspace_.kept;
  if (selector.keeps_scores()) {
    const std::span scores(workspace_.floats.ensure<float>(kept.size()), kept.size());
    for (std::size_t i = 0; i < kept.size(); ++i) scores[i] = head.scores[step].data()[kept[i]];
    return scores;
  }
  present_.clear();
  for (const std::uint32_t slot : kept) present_.push_back(positions_[slot]);
  SelectorCall call{shape_, Dtype::f32, sequence_, kv_head_, present_, {}, {}, {}};
  const auto rows_of = [&](const Role& role, const std::vector<Segment>& segments, Buffer& rows) {
    return present_rows(role, head, kv_head_, segments, kept, rows, workspace_);
  };
  if ((selector.reads() & KVLAB_READS_KEYS) != 0) call.keys = rows_of(keys_, head.keys, workspace_.rows);
  if ((selector.reads() & KVLAB_READS_VALUES) != 0) call.values = rows_of(values_, head.values, workspace_.more_rows);
  return call_selector(selector, call, workspace_);
}

// Raw tokens go at once, those that some codec holds are dead at first.
void HeadEvict::mark(const Head& head) {
  std::uint64_t raw_from = 0;
  if (keys_.coded()) raw_from = std::max(raw_from, head.key_cut);
  if (values_.coded()) raw_from = std::max(raw_from, head.value_cut);
  slots_.assign(positions_.size(), Slot::dead);
  for (const std::uint32_t slot : workspace_.kept) slots_[slot] = Slot::kept;
  for (std::uint64_t slot = raw_from; slot < slots_.size(); ++slot) {
    if (slots_[slot] == Slot::dead) slots_[slot] = Slot::removed;
  }
}

std::uint64_t HeadEvict::dead_in(std::uint64_t first, std::uint64_t end) const {
  return static_cast<std::uint64_t>(std::count(slots_.begin() + static_cast<std::ptrdiff_t>(first),
                                               slots_.begin() + static_cast<std::ptrdiff_t>(end), Slot::dead));
}

// Ends of the cells: slots between cuts that all codecs have in common.
std::vector<std::uint64_t> HeadEvict::cells(const Head& head) const {
  const auto ends = [](const Role& role, const std::vector<Segment>& segments, std::uint64_t cut) {
    std::vector<std::uint64_t> all;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      if (!role.coded() || segments[i].first >= cut) continue;
      // The chunks of a block that is being encoded have no cut between them.
      const Encoding* encoding = segments[i].encoding;
      const bool goes_on = encoding != nullptr && i + 1 < segments.size() && segments[i + 1].encoding == encoding;
      if (!goes_on) all.push_back(segments[i].first + segments[i].tokens);
    }
    return all;
  };
  std::vector<std::uint64_t> cuts = ends(keys_, head.keys, head.key_cut);
  const std::vector<std::uint64_t> value_cuts = ends(values_, head.values, head.value_cut);
  if (!keys_.coded()) return value_cuts;
  if (!values_.coded()) return cuts;
  std::vector<std::uint64_t> common;
  std::set_intersection(cuts.begin(), cuts.end(), value_cuts.begin(), value_cuts.end(), std::back_inserter(common));
  return common;
}

bool HeadEvict::compacts(std::uint64_t first, std::uint64_t end) const {
  const std::uint64_t dead = dead_in(first, end);
  return dead > 0 && 2 * dead >= end - first;
}

// What is being encoded stays so, unless it is to be compacted; where blocks are recoded cuts move.
bool HeadEvict::must_settle(const Head& head) const {
  if (head.encodings.empty()) return false;
  if (std::any_of(head.encodings.begin(), head.encodings.end(), [](const auto& e) { return e->recodes(); }))
    return true;
  const auto encoded_in = [](const std::vector<Segment>& segments, std::uint64_t first, std::uint64_t end) {
    return std::any_of(segments.begin(), segments.end(),
                       [&](const Segment& s) { return s.encoding != nullptr && s.first >= first && s.first < end; });
  };
  std::uint64_t first = 0;
  for (const std::uint64_t end : cells(head)) {
    if (compacts(first, end) && (encoded_in(head.keys, first, end) || encoded_in(head.values, first, end))) return true;
    first = end;
  }
  return false;
}

void HeadEvict::remove_cells(const Head& head) {
  std::uint64_t first = 0;
  for (const std::uint64_t end : cells(head)) {
    const std::uint64_t dead = dead_in(first, end);
    if (compacts(first, end) &&
        (dead == end - first || (gather_cell(keys_, head, head.keys, first, end, gathered_keys_) &&
                                 gather_cell(values_, head, head.values, first, end, gathered_values_)))) {
      for (std::uint64_t slot = first; slot < end; ++slot) {
        if (slots_[slot] == Slot::dead) slots_[slot] = Slot::removed;
      }
    }
    first = end;
  }
}

// The blocks of a cell without their dead; raw segments are compacted when the role is rebuilt.
bool HeadEvict::gather_cell(const Role& role, const Head& head, const std::vector<Segment>& segments,
                            std::uint64_t first, std::uint64_t end, std::vector<Segment>& gathered) {
  if (!role.coded()) return true;
  const std::size_t before = gathered.size();
  for (const auto& segment : segments) {
    if (segment.first < first || segment.first >= end || !segment.encoded) continue;
    std::vector<std::uint32_t> keep;
    for (std::uint64_t t = 0; t < segment.tokens; ++t) {
      if (slots_[segment.first + t] == Slot::kept) keep.push_back(static_cast<std::uint32_t>(t));
    }
    if (keep.empty() || keep.size() == segment.tokens) continue;
    const kvlab_block block = block_of(head, kv_head_, segment, workspace_.positions);
    Segment left{};
    if (!HeadEncoder(role, kv_head_, arena_, workspace_, false).gather(segment, block, keep, left)) {
      gathered.resize(before);
      return false;
    }
    gathered.push_back(std::move(left));
  }
  return true;
}

void HeadEvict::rebuild(Head& head) {
  rebuild_role(keys_, head.key_cut, head.keys, gathered_keys_);
  rebuild_role(values_, head.value_cut, head.values, gathered_values_);
  rebuild_scores(head);
  std::vector<std::uint32_t> left;
  head.dead = 0;
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot] == Slot::removed) continue;
    left.push_back(slots_[slot] == Slot::kept ? positions_[slot] : evicted + static_cast<std::uint32_t>(head.dead));
    head.dead += slots_[slot] == Slot::dead ? 1 : 0;
  }
  // Never all: some position was dropped.
  head.positions = Positions(left, std::uint64_t{1} << 32, arena_);
}

void HeadEvict::rebuild_scores(Head& head) {
  for (auto& scores : head.scores) {
    if (scores.size() == 0) continue;
    float* all = scores.resize(scores.size(), arena_);
    std::uint64_t left = 0;
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      if (slots_[slot] != Slot::removed) all[left++] = all[slot];
    }
    scores.resize(left, arena_);
  }
}

// The rows of raw segments that were not removed, side by side.
std::byte* HeadEvict::rows_left(const Role& role, std::span<const Segment> segments, std::uint64_t& tokens) {
  const std::uint64_t row = role.row_bytes();
  std::uint64_t all = 0;
  for (const auto& segment : segments) all += segment.tokens;
  auto* rows = workspace_.rows.ensure<std::byte>(all * row);
  tokens = 0;
  for (const auto& segment : segments) {
    for (std::uint64_t t = 0; t < segment.tokens; ++t) {
      if (slots_[segment.first + t] == Slot::removed) continue;
      std::memcpy(rows + tokens * row, segment.data + t * row, row);
      ++tokens;
    }
  }
  return rows;
}

void HeadEvict::rebuild_role(const Role& role, std::uint64_t& cut, std::vector<Segment>& segments,
                             std::vector<Segment>& gathered) {
  const HeadEncoder encoder(role, kv_head_, arena_, workspace_, false);
  const auto row = static_cast<std::int64_t>(role.row_bytes());
  const auto removed_in = [&](const Segment& s) {
    return std::count(slots_.begin() + static_cast<std::ptrdiff_t>(s.first),
                      slots_.begin() + static_cast<std::ptrdiff_t>(s.first + s.tokens), Slot::removed);
  };
  std::vector<Segment> left;
  std::uint64_t next = 0;
  const auto put = [&](Segment segment) {
    segment.first = next;
    next += segment.tokens;
    left.push_back(std::move(segment));
  };
  // Raw tokens behind the cut are laid out anew, so that the next block is cut where it would be.
  const auto tail = std::find_if(segments.begin(), segments.end(), [&](const Segment& s) {
    return role.coded() && !s.encoded && s.first >= std::max(cut, pipeline_.sinks);
  });
  for (auto segment = segments.begin(); segment != tail; ++segment) {
    const auto removed = static_cast<std::uint64_t>(removed_in(*segment));
    if (removed == segment->tokens && segment->tokens > 0) continue;
    if (removed == 0) {
      put(*segment);
    } else if (segment->encoded) {
      put(*std::find_if(gathered.begin(), gathered.end(), [&](const Segment& s) { return s.first == segment->first; }));
    } else {
      std::uint64_t tokens = 0;
      const std::byte* rows = rows_left(role, std::span(&*segment, 1), tokens);
      put(encoder.raw({rows, row}, next, tokens, tokens));
    }
  }
  if (role.coded()) {
    const auto below = slots_.begin() + static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(cut, slots_.size()));
    cut -= static_cast<std::uint64_t>(std::count(slots_.begin(), below, Slot::removed));
  }
  if (std::none_of(tail, segments.end(), [&](const Segment& s) { return removed_in(s) > 0; })) {
    for (auto segment = tail; segment != segments.end(); ++segment) put(*segment);
  } else {
    std::uint64_t tokens = 0;
    const std::byte* rows = rows_left(role, std::span(&*tail, static_cast<std::size_t>(segments.end() - tail)), tokens);
    const std::uint64_t block = role.block_tokens(rule_.at(total_));
    const std::uint64_t start = std::max(cut, pipeline_.sinks);
    for (std::uint64_t done = 0; done < tokens;) {
      const std::uint64_t room = chunk_rows(block, (next - start) % block);
      const std::uint64_t now = std::min(room, tokens - done);
      put(encoder.raw(TokenRows{rows, row}.from(done), next, now, room));
      done += now;
    }
  }
  segments = std::move(left);
}

}  // namespace kvlab
