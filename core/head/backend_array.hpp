// A growing array in backend memory: copies share it until one of them is written to; growing is amortized. The host
// does not read it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>

#include "core/backend/work.hpp"
#include "core/memory/arena.hpp"

namespace kvlab {

template <class T>
class BackendArray {
 public:
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] const T* data() const {
    return piece_ == nullptr ? nullptr : reinterpret_cast<const T*>(piece_->data());
  }
  [[nodiscard]] const std::shared_ptr<Piece>& piece() const { return piece_; }  // null: never grown

  // Padded bytes that writing at that size takes of the arena: 0 where they fit and nobody shares it.
  [[nodiscard]] std::uint64_t needs(std::uint64_t size) const {
    return fits(size) ? 0 : Arena::padded(capacity_for(size));
  }

  // Place for `count` values from `first` on, and no more after them; they are still to be written there. What is
  // before stays; this object's own from then on. Backend memory.
  T* open(std::uint64_t first, std::uint64_t count, Arena& arena, Promise& promise, Work& work) {
    const std::uint64_t size = first + count;
    if (fits(size)) {
      piece_->use(size * sizeof(T));
    } else {
      auto larger = arena.allocate(capacity_for(size), size * sizeof(T), promise);
      if (std::min(first, size_) > 0) {
        work.moves.push_back({piece_->data(), larger->data(), std::min(first, size_) * sizeof(T)});
        work.kept.push_back(std::move(piece_));
      }
      piece_ = std::move(larger);
    }
    size_ = size;
    return reinterpret_cast<T*>(piece_->data()) + first;
  }

  void write(std::uint64_t first, std::span<const T> values, Arena& arena, Promise& promise, Work& work) {
    T* to = open(first, values.size(), arena, promise, work);
    if (!values.empty()) work.upload(values, reinterpret_cast<std::byte*>(to));
  }

 private:
  [[nodiscard]] bool fits(std::uint64_t size) const {
    return piece_ != nullptr && piece_.use_count() == 1 && size * sizeof(T) <= piece_->capacity();
  }
  [[nodiscard]] std::uint64_t capacity_for(std::uint64_t size) const {
    const std::uint64_t bytes = size * sizeof(T);
    return size_ == 0 ? bytes : std::max(bytes, (size_ + size_ / 2) * sizeof(T));
  }

  std::uint64_t size_ = 0;
  std::shared_ptr<Piece> piece_;
};

}  // namespace kvlab
