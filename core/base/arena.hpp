// The memory of caches: pieces of a few huge mappings, given back and used again, counted, under a hard budget.
//
// It keeps two sums, which a cache's own byte count is tested against: requested(), what the pieces are used for, and
// reserved(), what they take: their full size, aligned. Mappings are kept until the arena ends: memory that was touched
// once stays warm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.hpp"
#include "core/base/memory.hpp"

namespace kvlab {

// The budget of a cache's memory is used up. What was there before the call is there still.
struct BudgetError : Error {
  using Error::Error;
};

class Arena;

// A piece of an arena: 64-byte aligned, and the 64 bytes after it may be read. It goes back when its last owner does.
class Piece {
 public:
  ~Piece();
  Piece(const Piece&) = delete;
  Piece& operator=(const Piece&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::uint64_t capacity() const { return capacity_; }
  [[nodiscard]] std::uint64_t used() const { return used_; }
  void use(std::uint64_t bytes);  // at most the capacity

 private:
  friend class Arena;
  Piece(Arena& arena, std::byte* data, std::uint64_t capacity, std::uint64_t used)
      : arena_(arena), data_(data), capacity_(capacity), used_(used) {}

  Arena& arena_;
  std::byte* data_;
  std::uint64_t capacity_;
  std::uint64_t used_;
};

// Bytes of an arena's budget set aside for a piece that comes later.
class Promise {
 public:
  Promise() = default;
  Promise(Promise&& other) noexcept : arena_(std::exchange(other.arena_, nullptr)), bytes_(other.bytes_) {}
  Promise& operator=(Promise&& other) noexcept;
  ~Promise();

 private:
  friend class Arena;
  Promise(Arena& arena, std::uint64_t bytes) : arena_(&arena), bytes_(bytes) {}

  Arena* arena_ = nullptr;
  std::uint64_t bytes_ = 0;
};

class Arena {
 public:
  static constexpr std::uint64_t alignment = 64;
  static constexpr std::uint64_t no_budget = std::numeric_limits<std::uint64_t>::max();
  static constexpr std::uint64_t padded(std::uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

  explicit Arena(std::uint64_t budget = no_budget) : budget_(budget) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() = default;  // after the last piece

  // Room for `capacity` bytes, of which `used` are at once. From any thread. Throws BudgetError, std::bad_alloc.
  std::shared_ptr<Piece> allocate(std::uint64_t capacity, std::uint64_t used);
  // The same, out of what was promised; what is left of the promise stays.
  std::shared_ptr<Piece> allocate(std::uint64_t capacity, std::uint64_t used, Promise& promise);
  // Sets that many padded bytes aside. Throws BudgetError.
  Promise promise(std::uint64_t bytes);
  // Throws BudgetError where that many padded bytes more would not be in the budget.
  void check(std::uint64_t bytes) const;
  // Maps memory for that many more padded bytes in one mapping, if less is free. A hint: no budget is spent.
  void prepare(std::uint64_t bytes);

  [[nodiscard]] std::uint64_t requested() const;
  [[nodiscard]] std::uint64_t reserved() const;
  [[nodiscard]] std::uint64_t mapped() const;  // of the system

 private:
  friend class Piece;
  friend class Promise;
  std::byte* take_locked(std::uint64_t& size, std::uint64_t used, std::uint64_t most);
  void release(std::byte* data, std::uint64_t capacity, std::uint64_t used);
  std::byte* take(std::uint64_t& size, std::uint64_t most);
  void map_more(std::uint64_t bytes);
  void check_locked(std::uint64_t bytes) const;
  [[nodiscard]] std::uint64_t left_locked() const;  // of the budget

  std::uint64_t budget_;
  mutable std::mutex mutex_;  // everything below
  std::vector<Mapping> mappings_;
  std::size_t current_ = 0;                        // the mapping that is dealt from
  std::uint64_t dealt_ = 0;                        // of it
  std::multimap<std::uint64_t, std::byte*> free_;  // by size
  std::uint64_t requested_ = 0;
  std::uint64_t reserved_ = 0;
  std::uint64_t promised_ = 0;
  std::uint64_t pieces_ = 0;
};

}  // namespace kvlab
