#include "core/cache/append.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/cache/encoding.hpp"
#include "core/cache/select.hpp"

namespace kvlab {
namespace {

// Raw chunks: at most so many rows, and at the least so many but for those before a cut.
std::uint64_t smallest_chunk(const Role& role) {
  std::uint64_t rows = chunk_rows(0, 0);
  for (const auto& codec : role.codecs) rows = std::min(rows, chunk_rows(codec.traits().block_tokens, 0));
  return rows;
}

std::uint64_t role_needs(const Pipeline& pipeline, const RungRule& rule, const Role& role,
                         const std::vector<Segment>& segments, std::uint64_t cut, std::uint64_t slots,
                         std::uint64_t gone, std::uint64_t count) {
  const std::uint64_t row = role.row_bytes();
  const std::uint64_t most = chunk_rows(0, 0);
  const std::uint64_t least = smallest_chunk(role);
  std::uint64_t bytes = 0;
  std::uint64_t left = count;
  if (!segments.empty() && segments.back().tokens < segments.back().room) {
    const Segment& open = segments.back();
    if (open.piece.use_count() > 1) bytes += open.piece->capacity();  // copied
    left -= std::min(left, open.room - open.tokens);
  }
  if (left > 0) {
    // Chunks end at cuts, so there may be shorter ones between whole ones: twice as many, and sinks.
    const std::uint64_t largest = role.codecs.size() > 1 ? most : least;
    bytes += (2 * (left / least) + 2) * Arena::padded(largest * row) +
             (slots < pipeline.sinks ? Arena::padded(std::max(largest, pipeline.sinks) * row) : 0);
  }
  if (!role.coded()) return bytes;
  // Where the next rung's blocks are cut elsewhere a chunk is laid out anew.
  const std::uint64_t split =
      role.codecs.size() == 1 ? 0 : 2 * Arena::padded(most * row) + (most / least + 2) * Arena::alignment;
  cut = std::max(cut, std::min(pipeline.sinks, slots + count));
  while (const auto next = next_block(rule, role, cut, pipeline.tail, slots + count, gone)) {
    bytes += Arena::padded(role.codecs[next->rung].bound(next->tokens)) + split;
    cut += next->tokens;
  }
  return bytes;
}

}  // namespace

std::uint64_t append_capacity(const Pipeline& pipeline, const RungRule& rule, const Role& keys, const Role& values,
                              const Head& head, std::uint64_t total, std::uint64_t count) {
  const std::uint64_t slots = head.positions.tokens();
  const std::uint64_t gone = total - slots;
  // Positions, and a score for each selector.
  const std::uint64_t words = head.positions.piece() == nullptr ? 0 : head.positions.piece()->used() / 4;
  const auto grown = [&](std::uint64_t size) { return Arena::padded((size * 3 / 2 + count) * 4 + Arena::alignment); };
  const std::uint64_t positions = grown(words) + pipeline.select.size() * grown(slots);
  return positions + role_needs(pipeline, rule, keys, head.keys, head.key_cut, slots, gone, count) +
         role_needs(pipeline, rule, values, head.values, head.value_cut, slots, gone, count);
}

void HeadAppend::score(std::span<const SelectorInstance> selectors, const LayerShape& shape, std::uint32_t sequence,
                       const NewTokens& tokens, Head& head) {
  head.scores.resize(selectors.size());
  std::vector<std::uint32_t> positions(tokens.count);
  std::iota(positions.begin(), positions.end(), tokens.position);
  for (std::size_t step = 0; step < selectors.size(); ++step) {
    if (!selectors[step].keeps_scores()) continue;
    const SelectorCall call{shape, shape.dtype, sequence, kv_head_, positions, tokens.keys, tokens.values, {}};
    const std::span<float> scores = call_selector(selectors[step], call, workspace_);
    ArenaArray<float>& all = head.scores[step];
    const std::uint64_t before = all.size();
    std::copy(scores.begin(), scores.end(), all.resize(before + tokens.count, arena_) + before);
  }
}

void HeadAppend::run(const NewTokens& tokens, Head& head) {
  install(keys_, head);
  head.positions.append(tokens.position, tokens.count, arena_);
  add(keys_, tokens.keys, tokens, head.key_cut, head.keys);
  add(values_, tokens.values, tokens, head.value_cut, head.values);
  const std::uint64_t total = tokens.position + tokens.count;
  if (keys_.coded()) encode(keys_, total, head.key_cut, head.keys, head);
  if (values_.coded()) encode(values_, total, head.value_cut, head.values, head);
}

void HeadAppend::add(const Role& role, TokenRows rows, const NewTokens& tokens, std::uint64_t cut,
                     std::vector<Segment>& segments) {
  const HeadEncoder encoder(role, kv_head_, arena_, workspace_, false);
  const std::uint64_t block = role.coded() ? role.block_tokens(rule_.at(tokens.position + tokens.count)) : 0;
  for (std::uint64_t count = tokens.count; count > 0;) {
    std::uint64_t now = 0;
    if (!segments.empty() && segments.back().tokens < segments.back().room) {
      now = std::min(segments.back().room - segments.back().tokens, count);
      encoder.extend(segments.back(), rows, now);
    } else {
      const std::uint64_t first = segments.empty() ? 0 : segments.back().first + segments.back().tokens;
      std::uint64_t room = chunk_rows(0, 0);
      if (role.coded() && first < pipeline_.sinks) {
        room = pipeline_.sinks - first;
      } else if (role.coded()) {
        room = chunk_rows(block, (first - std::max(cut, pipeline_.sinks)) % block);
      }
      now = std::min(room, count);
      segments.push_back(encoder.raw(rows, first, now, room));
    }
    rows = rows.from(now);
    count -= now;
  }
}

// Whole blocks behind which the tail is full.
void HeadAppend::encode(const Role& role, std::uint64_t total, std::uint64_t& cut, std::vector<Segment>& segments,
                        Head& head) {
  const std::uint64_t slots = head.positions.tokens();
  cut = std::max(cut, std::min(pipeline_.sinks, slots));
  while (const auto next = next_block(rule_, role, cut, pipeline_.tail, slots, total - slots)) {
    const auto at_cut =
        std::find_if(segments.rbegin(), segments.rend(), [&](const Segment& s) { return s.first == cut; });
    const auto begin = static_cast<std::size_t>(segments.rend() - at_cut) - 1;
    std::size_t end = begin;
    std::uint64_t tokens = 0;
    while (tokens < next->tokens) tokens += segments[end++].tokens;
    if (tokens > next->tokens)
      split(role, segments[end - 1].tokens - (tokens - next->tokens), end - 1, next->tokens, segments);
    start(role, next->rung, begin, end, segments, head);
    cut += next->tokens;
  }
}

// A raw chunk that was laid out for other blocks: its first `tokens` as one, the rest in chunks of these.
void HeadAppend::split(const Role& role, std::uint64_t tokens, std::size_t at, std::uint64_t block,
                       std::vector<Segment>& segments) {
  const HeadEncoder encoder(role, kv_head_, arena_, workspace_, false);
  const Segment chunk = segments[at];
  const bool is_last = at + 1 == segments.size();
  const TokenRows rows{chunk.data, static_cast<std::int64_t>(role.row_bytes())};
  std::vector<Segment> parts{encoder.raw(rows, chunk.first, tokens, tokens)};
  for (std::uint64_t done = tokens; done < chunk.tokens;) {
    const std::uint64_t room = chunk_rows(block, (done - tokens) % block);
    const std::uint64_t now = std::min(room, chunk.tokens - done);
    const bool is_open = is_last && done + now == chunk.tokens;
    parts.push_back(encoder.raw(rows.from(done), chunk.first + done, now, is_open ? room : now));
    done += now;
  }
  const auto place = segments.erase(segments.begin() + static_cast<std::ptrdiff_t>(at));
  segments.insert(place, parts.begin(), parts.end());
}

void HeadAppend::start(const Role& role, std::uint8_t rung, std::size_t begin, std::size_t end,
                       std::vector<Segment>& segments, Head& head) {
  const std::span<Segment> from = std::span(segments).subspan(begin, end - begin);
  const auto encoding = std::make_shared<Encoding>(role, kv_head_, rung, from, head.positions, arena_);
  for (auto& segment : from) {
    segment.encoding = encoding.get();
    segment.room = segment.tokens;  // laid out for larger blocks it may be open: nothing is added to what is encoded
  }
  const bool waits = background_ != nullptr && under_way(role, head) < most_under_way;
  head.encodings.push_back(encoding);
  if (waits) {
    background_->submit(encoding);
  } else {
    encoding->run(arena_, workspace_);
    install(keys_, head);
  }
}

std::size_t HeadAppend::under_way(const Role& role, const Head& head) {
  return static_cast<std::size_t>(std::count_if(head.encodings.begin(), head.encodings.end(),
                                                [&](const auto& encoding) { return &encoding->role() == &role; }));
}

// ---- recoding ------------------------------------------------------------------------------------------------------

void HeadAppend::recode(Head& head) {
  try {
    recode_more(head);
  } catch (const BudgetError&) {
    head.stale = true;  // the next append tries again
  }
}

// False where none is left.
bool HeadAppend::recode_role(const Role& role, std::vector<Segment>& segments, Head& head) {
  if (!role.coded()) return false;
  const auto is_stale = [&](const Segment& s) { return s.encoded && s.rung < rule_.least && s.encoding == nullptr; };
  const auto begin =
      static_cast<std::size_t>(std::find_if(segments.begin(), segments.end(), is_stale) - segments.begin());
  if (begin == segments.size()) return false;
  const std::uint64_t block = role.block_tokens(rule_.least);
  std::size_t end = begin;
  std::uint64_t tokens = 0;
  do {
    tokens += segments[end++].tokens;
  } while (tokens % block != 0 && tokens < 4 * block && end < segments.size() && is_stale(segments[end]));
  start(role, rule_.least, begin, end, segments, head);
  return true;
}

void HeadAppend::settle_all(Head& head) { settle(keys_, head, arena_, workspace_); }

void HeadAppend::finish(Head& head) {
  settle_all(head);
  while (head.stale) recode_more(head);
}

void HeadAppend::recode_more(Head& head) {
  const bool keys_left = recode_role(keys_, head.keys, head);
  const bool values_left = recode_role(values_, head.values, head);
  head.stale = keys_left || values_left;
}

}  // namespace kvlab
