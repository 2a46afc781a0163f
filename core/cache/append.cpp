#include "core/cache/append.hpp"

#include <algorithm>
#include <utility>

namespace kvlab {

// ---- raw chunks ----------------------------------------------------------------------------------------------------

// It can be grown where it is.
bool RoleGrowth::stands(const Segment& segment, const ChunkPlace& chunk) {
  return segment.first == chunk.first && segment.capacity == chunk.capacity &&
         (segment.tokens == chunk.tokens || (segment.tokens < chunk.tokens && segment.piece.use_count() == 1));
}

void RoleGrowth::plan(const LayoutRule& rule, const Role& role, const RoleState& state, std::uint64_t total,
                      std::uint64_t count) {
  role_ = &role;
  before_ = state.slots();
  const auto& segments = state.segments;
  const bool is_open = !segments.empty() && segments.back().tokens < segments.back().capacity;
  growth_layout(rule, state.cut, is_open ? segments.back().first : before_, before_ + count, total, layout_);
  kept_ = segments.size();
  while (kept_ > 0 && segments[kept_ - 1].first >= layout_.chunks.front().first) --kept_;
  standing_ = 0;
  while (standing_ < layout_.chunks.size() && kept_ + standing_ < segments.size() &&
         stands(segments[kept_ + standing_], layout_.chunks[standing_])) {
    ++standing_;
  }
  bytes_ = 0;
  for (const auto& block : layout_.blocks) bytes_ += bytes_of(role, block);
  for (std::size_t i = standing_; i < layout_.chunks.size(); ++i) bytes_ += bytes_of(role, layout_.chunks[i]);
}

void RoleGrowth::grow(const TokenRows& rows, Arena& arena, Promise& promise, Work& work, RoleState& state) {
  rows_ = rows;
  auto& segments = state.segments;
  for (std::size_t i = 0; i < standing_; ++i) extend(segments[kept_ + i], layout_.chunks[i], work);
  if (standing_ == layout_.chunks.size()) return;
  const auto first_old = segments.begin() + static_cast<std::ptrdiff_t>(kept_ + standing_);
  old_.assign(std::make_move_iterator(first_old), std::make_move_iterator(segments.end()));
  segments.erase(first_old, segments.end());
  for (std::size_t i = standing_; i < layout_.chunks.size(); ++i) {
    const ChunkPlace& chunk = layout_.chunks[i];
    segments.push_back(open_chunk(*role_, chunk, arena, promise));
    copy(chunk.first, chunk.first + chunk.tokens, segments.back().piece->data(), work);
  }
}

void RoleGrowth::extend(Segment& segment, const ChunkPlace& chunk, Work& work) const {
  if (segment.tokens == chunk.tokens) return;
  copy(segment.end(), chunk.first + chunk.tokens, segment.piece->data() + segment.size, work);
  segment.tokens = chunk.tokens;
  segment.size = chunk.tokens * role_->row_bytes();
  segment.bytes.uncompressed = segment.size;
  segment.piece->use(segment.size);
}

// Rows of the slots [first, end): of what stood there, then of the new tokens.
void RoleGrowth::copy(std::uint64_t first, std::uint64_t end, std::byte* to, Work& work) const {
  const auto add = [&](const TokenRows& rows, std::uint64_t at, std::uint64_t count) {
    Source source;
    source.rows = rows;
    source.first = at;
    source.count = count;
    work.copies.push_back({role_, work.sources.size(), to, false, {}});
    work.sources.push_back(source);
    to += count * role_->row_bytes();
    first += count;
  };
  for (const auto& segment : old_) {
    if (first >= end || first >= segment.end()) continue;
    add(role_->rows(segment.data), first - segment.first, std::min(end, segment.end()) - first);
  }
  if (first < end) add(rows_, first - before_, end - first);
}

// ---- a head --------------------------------------------------------------------------------------------------------

namespace {

// Scores of the new tokens, for eviction.
void ask_scores(const HeadCall& call, const NewTokens& tokens, const SelectorInstance& selector, float* to,
                Work& work) {
  const auto source = [&](bool reads, const TokenRows& rows) {
    if (!reads) return Sources{};
    Source all;
    all.rows = rows;
    all.count = tokens.count;
    work.sources.push_back(all);
    return Sources{work.sources.size() - 1, 1};
  };
  ScoreTask task;
  task.selector = &selector;
  task.dtype = call.layer.shape.dtype;
  task.sequence = call.sequence;
  task.kv_head = call.kv_head;
  task.first_position = tokens.position;
  task.tokens = tokens.count;
  task.keys_role = &call.layer.keys;
  task.values_role = &call.layer.values;
  task.keys = source((selector.reads() & KVLAB_READS_KEYS) != 0, tokens.keys);
  task.values = source((selector.reads() & KVLAB_READS_VALUES) != 0, tokens.values);
  task.stored = to;
  work.scores.push_back(task);
}

}  // namespace

void HeadGrowth::plan(const HeadCall& call, std::uint64_t count) {
  const Layer& layer = call.layer;
  keys.plan(layer.layout_rule(layer.keys, call.rule), layer.keys, call.head.keys, call.total, count);
  values.plan(layer.layout_rule(layer.values, call.rule), layer.values, call.head.values, call.total, count);
  const auto first = static_cast<std::uint32_t>(call.total - count);
  bytes = keys.bytes() + values.bytes() + call.head.positions.append_needs(first, count);
  for (std::size_t step = 0; step < layer.selectors.size(); ++step) {
    if (!layer.selectors[step].keeps_scores()) continue;
    const BackendArray<float>* scores = step < call.head.scores.size() ? &call.head.scores[step] : nullptr;
    bytes += scores != nullptr ? scores->needs(scores->size() + count) : Arena::padded(count * sizeof(float));
  }
}

void HeadGrowth::grow(const HeadCall& call, const NewTokens& tokens, Arena& arena, Promise& promise, Work& work) {
  Head& head = call.head;
  head.scores.resize(call.layer.selectors.size());
  head.positions.append(tokens.position, tokens.count, arena, promise, work);
  keys.grow(tokens.keys, arena, promise, work, head.keys);
  values.grow(tokens.values, arena, promise, work, head.values);
  for (std::size_t step = 0; step < call.layer.selectors.size(); ++step) {
    const SelectorInstance& selector = call.layer.selectors[step];
    if (!selector.keeps_scores()) continue;
    BackendArray<float>& scores = head.scores[step];
    ask_scores(call, tokens, selector, scores.open(scores.size(), tokens.count, arena, promise, work), work);
  }
}

// ---- encoding ------------------------------------------------------------------------------------------------------

void Encoder::start_due(const HeadCall& call, const Role& role, const Layout& layout, Promise& promise) {
  RoleState& state = call.head.of(role.which);
  if (!role.coded()) return;
  std::uint64_t first = layout.from;
  for (const BlockPlace& block : layout.blocks) {
    const auto begin = static_cast<std::size_t>(
        std::find_if(state.segments.rbegin(), state.segments.rend(), [&](const Segment& s) { return s.first <= first; })
            .base() -
        state.segments.begin() - 1);
    std::size_t end = begin;
    while (end < state.segments.size() && state.segments[end].first < first + block.tokens) ++end;
    start(call, role, block.rung, begin, end, promise.part(bytes_of(role, block)));
    first += block.tokens;
  }
  state.cut = layout.cut;
}

void Encoder::start(const HeadCall& call, const Role& role, std::uint8_t rung, std::size_t begin, std::size_t end,
                    Promise promise) {
  Head& head = call.head;
  const std::span<Segment> from = std::span(head.of(role.which).segments).subspan(begin, end - begin);
  const std::uint64_t tokens = from.back().end() - from.front().first;
  std::vector<std::uint32_t> positions;
  const std::uint32_t first = head.positions.slice(from.front().first, tokens, positions);
  auto encoding =
      std::make_shared<Encoding>(role, call.kv_head, rung, from, std::move(positions), first, std::move(promise));
  for (auto& segment : from) {
    segment.encoding = encoding.get();
    segment.capacity = segment.tokens;  // nothing is added to what is encoded
  }
  const auto is_waiting = [&](const std::shared_ptr<Encoding>& other) {
    return &other->role() == &role && std::find(now_.begin(), now_.end(), other) == now_.end();
  };
  const auto under_way = std::count_if(head.encodings.begin(), head.encodings.end(), is_waiting);
  head.encodings.push_back(encoding);
  if (in_background_ && static_cast<std::size_t>(under_way) < most_under_way) {
    backend_.defer(encoding, arena_);
  } else {
    now_.push_back(std::move(encoding));
    heads_.push_back(&head);
  }
}

void Encoder::start_stale(const HeadCall& call) {
  const bool keys_left = start_stale(call, call.layer.keys);
  const bool values_left = start_stale(call, call.layer.values);
  call.head.stale = keys_left || values_left;
}

// False where none is left.
bool Encoder::start_stale(const HeadCall& call, const Role& role) {
  if (!role.coded()) return false;
  const auto& segments = call.head.of(role.which).segments;
  const std::uint8_t least = call.rule.least;
  const auto is_stale = [&](const Segment& s) { return s.encoded && s.rung < least && s.encoding == nullptr; };
  const auto begin =
      static_cast<std::size_t>(std::find_if(segments.begin(), segments.end(), is_stale) - segments.begin());
  if (begin == segments.size()) return false;
  const std::uint64_t block = role.block_tokens[least];
  std::size_t end = begin;
  std::uint64_t tokens = 0;
  do {
    tokens += segments[end++].tokens;
  } while (tokens % block != 0 && tokens < 4 * block && end < segments.size() && is_stale(segments[end]));
  std::uint64_t bytes = tokens / block * (tokens >= block ? bytes_of(role, BlockPlace{least, block}) : 0);
  if (tokens % block > 0) bytes += bytes_of(role, BlockPlace{least, tokens % block});
  start(call, role, least, begin, end, arena_.promise(bytes));
  return true;
}

void Encoder::settle(Head& head) {
  if (head.encodings.empty()) return;
  now_.insert(now_.end(), head.encodings.begin(), head.encodings.end());
  heads_.push_back(&head);
}

void Encoder::finish() {
  if (!now_.empty()) {
    backend_.run(std::span<const std::shared_ptr<Encoding>>(now_), arena_);
    backend_.synchronize();
  }
  now_.clear();
  for (Head* head : std::exchange(heads_, {})) install(*head);
}

}  // namespace kvlab
