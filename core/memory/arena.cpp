#include "core/memory/arena.hpp"

#include <algorithm>

namespace kvlab {
namespace {

constexpr std::uint64_t readable = Arena::alignment;  // after the last piece of a mapping
constexpr std::uint64_t least_mapping = std::uint64_t{1} << 20;
constexpr std::uint64_t most_mapping = std::uint64_t{1} << 28;

}  // namespace

Piece::~Piece() { arena_.release(data_, capacity_, used_); }

void Piece::use(std::uint64_t bytes) {
  const std::lock_guard lock(arena_.mutex_);
  arena_.requested_ += bytes - used_;
  used_ = bytes;
}

void Arena::check(std::uint64_t bytes) const {
  const std::lock_guard lock(mutex_);
  check_locked(bytes);
}

std::uint64_t Arena::left_locked() const { return budget_ - std::min(budget_, reserved_ + promised_); }

void Arena::check_locked(std::uint64_t bytes) const {
  if (bytes <= left_locked()) return;
  throw BudgetError("the cache's budget of " + std::to_string(budget_) +
                    " bytes is used up: " + std::to_string(reserved_ + promised_) + " are taken, " +
                    std::to_string(bytes) + " more are asked for");
}

Promise& Promise::operator=(Promise&& other) noexcept {
  std::swap(arena_, other.arena_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Promise::~Promise() {
  if (arena_ == nullptr) return;
  const std::lock_guard lock(arena_->mutex_);
  arena_->promised_ -= bytes_;
}

Promise Promise::part(std::uint64_t bytes) {
  if (arena_ == nullptr) return {};
  const std::lock_guard lock(arena_->mutex_);
  const std::uint64_t given = std::min(bytes, bytes_);
  bytes_ -= given;
  return {*arena_, given};
}

std::uint64_t Promise::bytes() const {
  if (arena_ == nullptr) return 0;
  const std::lock_guard lock(arena_->mutex_);
  return bytes_;
}

Promise Arena::promise(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  check_locked(bytes);
  promised_ += bytes;
  return {*this, bytes};
}

std::shared_ptr<Piece> Arena::allocate(std::uint64_t capacity, std::uint64_t used) {
  return allocate(capacity, used, nullptr);
}

std::shared_ptr<Piece> Arena::allocate(std::uint64_t capacity, std::uint64_t used, Promise& promise) {
  return allocate(capacity, used, &promise);
}

std::shared_ptr<Piece> Arena::allocate(std::uint64_t capacity, std::uint64_t used, Promise* promise) {
  std::uint64_t size = std::max(alignment, padded(capacity));
  std::byte* data = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t promised = promise == nullptr ? 0 : std::min(size, promise->bytes_);
    check_locked(size - promised);
    promised_ -= promised;
    if (promise != nullptr) promise->bytes_ -= promised;
    data = take(size);
    reserved_ += size;
    most_reserved_ = std::max(most_reserved_, reserved_);
    requested_ += used;
    ++pieces_;
  }
  return std::shared_ptr<Piece>(new Piece(*this, data, size, used));
}

// A free piece of the size, or up to a quarter more (it then stays as it is), where the budget allows that beside
// what was promised; else from the region.
std::byte* Arena::take(std::uint64_t& size) {
  const auto found = free_.lower_bound(size);
  if (found != free_.end() && found->first <= std::min(size + size / 4, left_locked())) {
    size = found->first;
    std::byte* data = found->second;
    free_.erase(found);
    return data;
  }
  while (regions_.empty() || dealt_ + size + readable > regions_[current_]->size()) {
    if (current_ + 1 < regions_.size()) {
      ++current_;
      dealt_ = 0;
    } else {
      map_more(size);
    }
  }
  std::byte* data = regions_[current_]->data() + dealt_;
  dealt_ += size;
  return data;
}

std::uint64_t Arena::mapped_locked() const {
  std::uint64_t total = 0;
  for (const auto& region : regions_) total += region->size();
  return total;
}

// A half more than there is, within bounds.
void Arena::map_more(std::uint64_t bytes) {
  const std::uint64_t wanted = std::clamp(mapped_locked() / 2, least_mapping, most_mapping);
  regions_.push_back(memory_.map(std::max(wanted, bytes + readable)));
  current_ = regions_.size() - 1;
  dealt_ = 0;
}

void Arena::set_budget(std::uint64_t budget) {
  const std::lock_guard lock(mutex_);
  budget_ = budget;
}

void Arena::prepare(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (mapped_locked() - reserved_ < bytes + readable) map_more(bytes);
}

void Arena::release(std::byte* data, std::uint64_t capacity, std::uint64_t used) {
  const std::lock_guard lock(mutex_);
  reserved_ -= capacity;
  requested_ -= used;
  if (--pieces_ == 0) {  // all is free: deal from the front again, neighbours side by side
    free_.clear();
    current_ = 0;
    dealt_ = 0;
    return;
  }
  free_.emplace(capacity, data);
}

std::uint64_t Arena::requested() const {
  const std::lock_guard lock(mutex_);
  return requested_;
}

std::uint64_t Arena::reserved() const {
  const std::lock_guard lock(mutex_);
  return reserved_;
}

std::uint64_t Arena::most_reserved() const {
  const std::lock_guard lock(mutex_);
  return most_reserved_;
}

void Arena::reset_most() {
  const std::lock_guard lock(mutex_);
  most_reserved_ = reserved_;
}

std::uint64_t Arena::mapped() const {
  const std::lock_guard lock(mutex_);
  return mapped_locked();
}

}  // namespace kvlab
