#include "core/backend/encoding.hpp"

#include <algorithm>
#include <utility>

namespace kvlab {

Encoding::Encoding(const Role& role, std::uint32_t kv_head, std::uint8_t rung, std::span<const Segment> from,
                   std::vector<std::uint32_t> positions, std::uint32_t first_position, Promise promise)
    : role_(role), from_(from.begin(), from.end()), positions_(std::move(positions)), promise_(std::move(promise)) {
  view_.first = first_position;
  if (!positions_.empty()) {
    view_.form = PositionsView::Form::list;
    view_.words = positions_.data();
  }
  std::uint64_t tokens = 0;
  for (const auto& segment : from_) tokens += segment.tokens;
  const std::uint64_t block = role.block_tokens[rung];
  for (std::uint64_t first = 0; first < tokens; first += block) {
    add_block(rung, kv_head, first, std::min(block, tokens - first));
  }
}

// Tokens [first, first + count) of all: parts of the segments that they are in.
void Encoding::add_block(std::uint8_t rung, std::uint32_t kv_head, std::uint64_t first, std::uint64_t count) {
  EncodeTask task;
  task.role = &role_;
  task.rung = rung;
  task.kv_head = kv_head;
  task.tokens = count;
  task.sources.first = work_.sources.size();
  task.positions = view_;
  task.slot = first;
  task.promise = &promise_;
  std::uint64_t at = 0;  // of the segment
  for (const auto& segment : from_) {
    const std::uint64_t begin = std::max(first, at);
    const std::uint64_t end = std::min(first + count, at + segment.tokens);
    if (begin < end) {
      Source source;
      source.kv_head = kv_head;
      source.first = begin - at;
      source.count = end - begin;
      if (segment.encoded) {
        source.block = &segment;
        source.positions = view_;
        source.slot = at;
      } else {
        source.rows = role_.rows(segment.data);
      }
      work_.sources.push_back(source);
      ++task.sources.count;
    }
    at += segment.tokens;
  }
  bound_ += role_.codecs[rung].bound(count);
  work_.encodes.push_back(std::move(task));
}

void Encoding::run(const Encode& encode) {
  State expected = State::waiting;
  if (!state_.compare_exchange_strong(expected, State::running)) return;
  try {
    std::uint64_t first = 0;
    for (EncodeTask& task : work_.encodes) {
      encode(task, work_);
      blocks_.push_back(std::move(task.made));
      blocks_.back().first = std::exchange(first, first + task.tokens);
    }
    promise_ = Promise();
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

}  // namespace kvlab
