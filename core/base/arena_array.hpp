// A growing array in an arena: copies share it until one of them is written to; growing is amortized.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>

#include "core/base/arena.hpp"

namespace kvlab {

template <class T>
class ArenaArray {
 public:
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] const T* data() const {
    return piece_ == nullptr ? nullptr : reinterpret_cast<const T*>(piece_->data());
  }
  [[nodiscard]] std::span<const T> values() const { return {data(), size_}; }
  [[nodiscard]] const std::shared_ptr<Piece>& piece() const { return piece_; }  // null: never grown

  // This object's own elements, of that number; the first that there were stay, others are uninitialised.
  T* resize(std::uint64_t size, Arena& arena) {
    const std::uint64_t bytes = size * sizeof(T);
    if (piece_ == nullptr || piece_.use_count() > 1 || bytes > piece_->capacity()) {
      const std::uint64_t room = size_ == 0 ? bytes : std::max(bytes, (size_ + size_ / 2) * sizeof(T));
      auto larger = arena.allocate(room, bytes);
      std::copy_n(data(), std::min(size, size_), reinterpret_cast<T*>(larger->data()));
      piece_ = std::move(larger);
    } else {
      piece_->use(bytes);
    }
    size_ = size;
    return reinterpret_cast<T*>(piece_->data());
  }

 private:
  std::uint64_t size_ = 0;
  std::shared_ptr<Piece> piece_;
};

}  // namespace kvlab
