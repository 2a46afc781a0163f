#include "core/base/arena.hpp"

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

Promise Arena::promise(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  check_locked(bytes);
  promised_ += bytes;
  return {*this, bytes};
}

std::shared_ptr<Piece> Arena::allocate(std::uint64_t capacity, std::uint64_t used) {
  std::uint64_t size = std::max(alignment, padded(capacity));
  std::byte* data = nullptr;
  {
    const std::lock_guard lock(mutex_);
    data = take_locked(size, used, size + size / 4);
  }
  return std::shared_ptr<Piece>(new Piece(*this, data, size, used));
}

std::shared_ptr<Piece> Arena::allocate(std::uint64_t capacity, std::uint64_t used, Promise& promise) {
  std::uint64_t size = std::max(alignment, padded(capacity));
  std::byte* data = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t most = std::max(size, promise.bytes_);  // what others were promised is theirs
    if (size > promise.bytes_) check_locked(size - promise.bytes_);
    promised_ -= promise.bytes_;
    data = take_locked(size, used, most);
    promise.bytes_ -= std::min(size, promise.bytes_);
    promised_ += promise.bytes_;
  }
  return std::shared_ptr<Piece>(new Piece(*this, data, size, used));
}

std::byte* Arena::take_locked(std::uint64_t& size, std::uint64_t used, std::uint64_t most) {
  check_locked(size);
  std::byte* data = take(size, most);
  reserved_ += size;
  requested_ += used;
  ++pieces_;
  return data;
}

// A free piece of the size, or up to a quarter more (it then stays as it is); else from the mapping.
std::byte* Arena::take(std::uint64_t& size, std::uint64_t most) {
  const auto found = free_.lower_bound(size);
  if (found != free_.end() && found->first <= std::min({size + size / 4, most, left_locked()})) {
    size = found->first;
    std::byte* data = found->second;
    free_.erase(found);
    return data;
  }
  while (mappings_.empty() || dealt_ + size + readable > mappings_[current_].size()) {
    if (current_ + 1 < mappings_.size()) {
      ++current_;
      dealt_ = 0;
    } else {
      map_more(size);
    }
  }
  std::byte* data = mappings_[current_].data() + dealt_;
  dealt_ += size;
  return data;
}

// A half more than there is, within bounds.
void Arena::map_more(std::uint64_t bytes) {
  std::uint64_t total = 0;
  for (const auto& mapping : mappings_) total += mapping.size();
  const std::uint64_t wanted = std::clamp(total / 2, least_mapping, most_mapping);
  mappings_.emplace_back(std::max(wanted, bytes + readable));
  current_ = mappings_.size() - 1;
  dealt_ = 0;
}

void Arena::prepare(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  std::uint64_t total = 0;
  for (const auto& mapping : mappings_) total += mapping.size();
  if (total - reserved_ < bytes + readable) map_more(bytes);
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

std::uint64_t Arena::mapped() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t bytes = 0;
  for (const auto& mapping : mappings_) bytes += mapping.size();
  return bytes;
}

}  // namespace kvlab
