#include "core/cache/append.hpp"

#include <algorithm>
#include <utility>

namespace kvlab {

// ---- raw chunks ----------------------------------------------------------------------------------------------------

// Only what was laid out for blocks of another size does not.
bool RoleGrowth::stays(const Segment& segment, const ChunkPlace& chunk) const {
  return segment.first == chunk.first && segment.room == chunk.room && segment.tokens <= chunk.tokens;
}

void RoleGrowth::plan(const LayoutRule& rule, const Role& role, const RoleState& state, std::uint64_t total,
                      std::uint64_t count) {
  role_ = &role;
  before_ = state.slots();
  const auto& segments = state.segments;
  const bool is_open = !segments.empty() && segments.back().tokens < segments.back().room;
  growth_layout(rule, state.cut, is_open ? segments.back().first : before_, before_ + count, total, layout_);
  kept_ = segments.size();
  while (kept_ > 0 && segments[kept_ - 1].first >= layout_.chunks.front().first) --kept_;
  bytes_ = 0;
  for (const auto& block : layout_.blocks) bytes_ += bytes_of(role, block);
  std::size_t next = kept_;
  for (const auto& chunk : layout_.chunks) {
    while (next < segments.size() && segments[next].first < chunk.first) ++next;
    const bool is_there = next < segments.size() && stays(segments[next], chunk);
    const bool is_written = !is_there || (segments[next].tokens < chunk.tokens && segments[next].piece.use_count() > 1);
    if (is_written) bytes_ += bytes_of(role, chunk);
  }
}

void RoleGrowth::grow(const TokenRows& rows, Arena& arena, Promise& promise, Work& work, RoleState& state) {
  rows_ = rows;
  auto& segments = state.segments;
  old_.assign(std::make_move_iterator(segments.begin() + static_cast<std::ptrdiff_t>(kept_)),
              std::make_move_iterator(segments.end()));
  segments.resize(kept_);
  const std::uint64_t row = role_->row_bytes();
  auto old = old_.begin();
  for (const auto& chunk : layout_.chunks) {
    while (old != old_.end() && old->first < chunk.first) ++old;
    const bool is_there = old != old_.end() && stays(*old, chunk);
    const std::uint64_t end = chunk.first + chunk.tokens;
    if (is_there && (old->tokens == chunk.tokens || old->piece.use_count() == 1)) {
      segments.push_back(std::move(*old));
      Segment& segment = segments.back();
      if (segment.tokens == chunk.tokens) continue;
      copy(segment.end(), end, segment.piece->data() + segment.size, work);
      segment.tokens = chunk.tokens;
      segment.size = chunk.tokens * row;
      segment.bytes.uncompressed = segment.size;
      segment.piece->use(segment.size);
    } else {
      segments.push_back(open_chunk(*role_, chunk, arena, promise));
      copy(chunk.first, end, segments.back().piece->data(), work);
    }
  }
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
  const auto step = static_cast<std::int64_t>(role_->row_bytes());
  for (const auto& segment : old_) {
    if (first >= end || first >= segment.end()) continue;
    add({segment.data, step}, first - segment.first, std::min(end, segment.end()) - first);
  }
  if (first < end) add(rows_, first - before_, end - first);
}

// ---- a head --------------------------------------------------------------------------------------------------------

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
  auto encoding = std::make_shared<Encoding>(role, call.kv_head, rung, from, std::move(positions), first,
                                             std::move(promise));
  for (auto& segment : from) {
    segment.encoding = encoding.get();
    segment.room = segment.tokens;  // nothing is added to what is encoded
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
