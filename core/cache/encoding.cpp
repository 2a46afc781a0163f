#include "core/cache/encoding.hpp"

#include <algorithm>
#include <cstring>

#include "core/cache/blocks.hpp"

namespace kvlab {

Encoding::Encoding(const Role& role, std::uint32_t kv_head, std::uint8_t rung, std::span<const Segment> from,
                   const Positions& positions, Arena& arena)
    : role_(role), kv_head_(kv_head), rung_(rung), from_(from.begin(), from.end()) {
  for (const auto& segment : from_) tokens_ += segment.tokens;
  const Positions::Range range = positions.range(from_.front().first, tokens_, positions_);
  first_position_ = range.first;
  if (range.list == nullptr) {
    positions_.clear();
  } else if (range.list != positions_.data()) {
    positions_.assign(range.list, range.list + tokens_);
  }
  const std::uint64_t block = role.block_tokens(rung);
  const std::uint64_t rest = tokens_ % block;
  const CodecInstance& codec = role.codecs[rung];
  const std::uint64_t of_block = tokens_ >= block ? codec.bound(block) : 0;
  const std::uint64_t of_rest = rest > 0 ? codec.bound(rest) : 0;
  bound_ = tokens_ / block * of_block + of_rest;
  room_ = arena.promise(tokens_ / block * Arena::padded(of_block) + Arena::padded(of_rest));
}

void Encoding::run(Arena& arena, Workspace& workspace) {
  State expected = State::waiting;
  if (!state_.compare_exchange_strong(expected, State::running)) return;
  try {
    encode(arena, workspace);
    state_ = State::done;
  } catch (...) {
    blocks_.clear();
    failure_ = std::current_exception();
    state_ = State::failed;
  }
  state_.notify_all();
}

void Encoding::wait() const {
  for (State state = state_; state < State::done; state = state_) state_.wait(state);
}

const std::vector<Segment>& Encoding::blocks() const {
  if (failure_) std::rethrow_exception(failure_);
  return blocks_;
}

std::span<const Segment> Encoding::made() const {
  return ready() ? std::span<const Segment>(blocks_) : std::span<const Segment>();
}

Positions::Range Encoding::positions(std::uint64_t first) const {
  if (positions_.empty()) return {nullptr, first_position_ + static_cast<std::uint32_t>(first)};
  return {positions_.data() + first, positions_[first]};
}

void Encoding::encode(Arena& arena, Workspace& workspace) {
  const HeadEncoder encoder(role_, kv_head_, arena, workspace, false);
  const TokenRows all = rows(workspace);
  const std::uint64_t block = role_.block_tokens(rung_);
  for (std::uint64_t first = 0; first < tokens_; first += block) {
    const std::uint64_t count = std::min(block, tokens_ - first);
    blocks_.push_back(encoder.block(rung_, all.from(first), positions(first), first, count, &room_));
  }
  room_ = Promise();
}

// Where they lie, if that is one place and raw; else copied or decoded side by side.
TokenRows Encoding::rows(Workspace& workspace) const {
  const std::uint64_t row = role_.row_bytes();
  const auto step = static_cast<std::int64_t>(row);
  if (from_.size() == 1 && !from_.front().encoded) return {from_.front().data, step};
  auto* joined = workspace.rows.ensure<std::byte>(tokens_ * row);
  std::uint64_t done = 0;
  for (const auto& segment : from_) {
    std::byte* to = joined + done * row;
    if (segment.encoded) {
      const kvlab_block block = block_of(kv_head_, segment, positions(done));
      const std::uint64_t tile = tile_tokens(role_, segment);
      float* rows = workspace.floats.ensure<float>(tile * role_.channels);
      for (std::uint64_t first = 0; first < segment.tokens; first += tile) {
        const std::uint64_t count = std::min(tile, segment.tokens - first);
        decode_block(role_, segment, block, first, count, rows, workspace);
        from_f32(role_.dtype, rows, to + first * row, count * role_.channels);
      }
    } else {
      std::memcpy(to, segment.data, segment.tokens * row);
    }
    done += segment.tokens;
  }
  return {joined, step};
}

namespace {

void put(const Encoding& encoding, std::vector<Segment>& segments) {
  const auto is_from = [&](const Segment& s) { return s.encoding == &encoding; };
  const auto behind = std::find_if(segments.rbegin(), segments.rend(), is_from);  // new blocks are at the end
  const auto end = behind.base();
  const auto begin = std::find_if_not(behind, segments.rend(), is_from).base();
  std::vector<Segment> blocks = encoding.blocks();
  for (auto& block : blocks) block.first += begin->first;
  *begin = std::move(blocks.front());
  const auto rest = segments.erase(std::next(begin), end);
  segments.insert(rest, std::make_move_iterator(std::next(blocks.begin())), std::make_move_iterator(blocks.end()));
}

}  // namespace

void install(const Role& keys, Head& head) {
  auto& all = head.encodings;
  for (std::size_t i = 0; i < all.size();) {
    if (!all[i]->ready()) {
      ++i;
      continue;
    }
    put(*all[i], &all[i]->role() == &keys ? head.keys : head.values);
    all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void settle(const Role& keys, Head& head, Arena& arena, Workspace& workspace) {
  for (const auto& encoding : head.encodings) encoding->run(arena, workspace);
  for (const auto& encoding : head.encodings) encoding->wait();
  install(keys, head);
}

}  // namespace kvlab
