#include "core/cache/append.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/cache/select.hpp"

namespace kvlab {
namespace {

std::uint64_t role_needs(const Pipeline& pipeline, const Role& role, const std::vector<Segment>& segments,
                         std::uint64_t cut, std::uint64_t tokens, std::uint64_t count) {
  const std::uint64_t row = role.row_bytes();
  std::uint64_t bytes = 0;
  std::uint64_t left = count;
  if (!segments.empty() && segments.back().tokens < segments.back().room) {
    const Segment& open = segments.back();
    if (open.piece.use_count() > 1) bytes += open.piece->capacity();  // copied
    left -= std::min(left, open.room - open.tokens);
  }
  if (left > 0) {
    const std::uint64_t most = std::max(chunk_rows(role, 0), role.codec ? pipeline.sinks : 0);
    // Chunks end at cuts, so there may be shorter ones between whole ones: twice as many, and sinks.
    bytes += (2 * (left / chunk_rows(role, 0)) + 2) * Arena::padded(chunk_rows(role, 0) * row) +
             (tokens < pipeline.sinks ? Arena::padded(most * row) : 0);
  }
  if (!role.codec) return bytes;
  const std::uint64_t block = role.codec->traits().block_tokens;
  const std::uint64_t start = std::max(cut, pipeline.sinks) + pipeline.tail;
  const std::uint64_t after = tokens + count;
  const std::uint64_t blocks = after > start ? (after - start) / block : 0;
  return bytes + (blocks > 0 ? blocks * Arena::padded(role.codec->bound(block)) : 0);
}

}  // namespace

std::uint64_t append_capacity(const Pipeline& pipeline, const Role& keys, const Role& values, const Head& head,
                              std::uint64_t count) {
  const std::uint64_t tokens = head.positions.tokens();
  // Positions, and a score for each selector.
  const std::uint64_t words = head.positions.piece() == nullptr ? 0 : head.positions.piece()->used() / 4;
  const auto grown = [&](std::uint64_t size) { return Arena::padded((size * 3 / 2 + count) * 4 + Arena::alignment); };
  const std::uint64_t positions = grown(words) + pipeline.select.size() * grown(tokens);
  return positions + role_needs(pipeline, keys, head.keys, head.key_cut, tokens, count) +
         role_needs(pipeline, values, head.values, head.value_cut, tokens, count);
}

void HeadAppend::score(std::span<const SelectorInstance> selectors, const LayerShape& shape, std::uint32_t sequence,
                       const NewTokens& tokens, Head& head) {
  head.scores.resize(selectors.size());
  std::vector<std::uint32_t> positions(tokens.count);
  std::iota(positions.begin(), positions.end(), tokens.position);
  for (std::size_t step = 0; step < selectors.size(); ++step) {
    if (selectors[step].reads() == 0) continue;
    const SelectorCall call{shape, sequence, kv_head_, positions, tokens.keys, tokens.values, {}};
    const std::span<float> scores = call_selector(selectors[step], call, workspace_);
    ArenaArray<float>& all = head.scores[step];
    const std::uint64_t before = all.size();
    std::copy(scores.begin(), scores.end(), all.resize(before + tokens.count, arena_) + before);
  }
}

void HeadAppend::run(const Role& keys, const Role& values, const NewTokens& tokens, Head& head) {
  head.positions.append(tokens.position, tokens.count, arena_);
  add(keys, tokens.keys, tokens.count, head.key_cut, head.keys);
  add(values, tokens.values, tokens.count, head.value_cut, head.values);
  if (keys.codec) encode(keys, head.positions, head.key_cut, head.keys);
  if (values.codec) encode(values, head.positions, head.value_cut, head.values);
}

void HeadAppend::add(const Role& role, TokenRows rows, std::uint64_t count, std::uint64_t cut,
                     std::vector<Segment>& segments) {
  const HeadEncoder encoder(role, kv_head_, arena_, workspace_, false);
  while (count > 0) {
    if (!segments.empty() && segments.back().tokens < segments.back().room) {
      const std::uint64_t now = std::min(segments.back().room - segments.back().tokens, count);
      encoder.extend(segments.back(), rows, now);
      rows = rows.from(now);
      count -= now;
      continue;
    }
    const std::uint64_t first = segments.empty() ? 0 : segments.back().first + segments.back().tokens;
    std::uint64_t room = chunk_rows(role, 0);
    if (role.codec && first < pipeline_.sinks) {
      room = pipeline_.sinks - first;
    } else if (role.codec) {
      room = chunk_rows(role, (first - std::max(cut, pipeline_.sinks)) % role.codec->traits().block_tokens);
    }
    const std::uint64_t now = std::min(room, count);
    segments.push_back(encoder.raw(rows, first, now, room));
    rows = rows.from(now);
    count -= now;
  }
}

// Whole blocks behind which the tail is full.
void HeadAppend::encode(const Role& role, const Positions& positions, std::uint64_t& cut,
                        std::vector<Segment>& segments) {
  const HeadEncoder encoder(role, kv_head_, arena_, workspace_, false);
  const std::uint64_t block = role.codec->traits().block_tokens;
  const std::uint64_t row = role.row_bytes();
  cut = std::max(cut, std::min(pipeline_.sinks, positions.tokens()));
  while (positions.tokens() >= cut + block + pipeline_.tail) {
    const auto begin = std::find_if(segments.begin(), segments.end(), [&](const Segment& s) { return s.first == cut; });
    auto end = begin;
    std::uint64_t tokens = 0;
    while (tokens < block) tokens += (end++)->tokens;
    TokenRows rows{begin->data, static_cast<std::int64_t>(row)};
    if (std::distance(begin, end) > 1) {
      auto* joined = workspace_.rows.ensure<std::byte>(block * row);
      std::uint64_t done = 0;
      for (auto chunk = begin; chunk != end; ++chunk) {
        std::memcpy(joined + done, chunk->data, chunk->size);
        done += chunk->size;
      }
      rows.base = joined;
    }
    *begin = encoder.block(rows, positions, cut, block);
    segments.erase(std::next(begin), end);
    cut += block;
  }
}

}  // namespace kvlab
