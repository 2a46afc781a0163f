// The memory of caches: pieces of a few huge regions, given back and used again, counted, under a hard budget.
//
// It keeps two sums, which a cache's own byte count is tested against: requested(), what the pieces are used for, and
// reserved(), what they take: their full size, aligned. Regions are kept until the arena ends: memory that was touched
// once stays warm. Where they come from is the resource's matter; the arena itself never touches them.
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
#include "core/memory/resource.hpp"

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

// Bytes of an arena's budget set aside for pieces that come later. What is left of it at its end is given back.
class Promise {
 public:
  Promise() = default;
  Promise(Promise&& other) noexcept
      : arena_(std::exchange(other.arena_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Promise& operator=(Promise&& other) noexcept;
  ~Promise();

  // A part of it as a promise of its own: that many bytes, or all that are left.
  Promise part(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t bytes() const;  // that are left

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

  explicit Arena(MemoryResource& memory, std::uint64_t budget = no_budget) : memory_(memory), budget_(budget) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() = default;  // after the last piece

  // Room for `capacity` bytes, of which `used` are at once. From any thread. Throws BudgetError, std::bad_alloc.
  std::shared_ptr<Piece> allocate(std::uint64_t capacity, std::uint64_t used);
  // The same, out of what was promised first; what the promise has not comes out of the rest of the budget.
  std::shared_ptr<Piece> allocate(std::uint64_t capacity, std::uint64_t used, Promise& promise);
  // Sets that many padded bytes aside. Throws BudgetError.
  Promise promise(std::uint64_t bytes);
  // Throws BudgetError where that many padded bytes more would not be in the budget.
  void check(std::uint64_t bytes) const;
  // From now on. What there is beyond it stays.
  void set_budget(std::uint64_t budget);
  // Maps memory for that many more padded bytes in one mapping, if less is free. A hint: no budget is spent.
  void prepare(std::uint64_t bytes);

  [[nodiscard]] std::uint64_t requested() const;
  [[nodiscard]] std::uint64_t reserved() const;
  // The most that was reserved at once since the last reset_most().
  [[nodiscard]] std::uint64_t most_reserved() const;
  void reset_most();
  [[nodiscard]] std::uint64_t mapped() const;  // of the system

 private:
  friend class Piece;
  friend class Promise;
  std::shared_ptr<Piece> allocate(std::uint64_t capacity, std::uint64_t used, Promise* promise);
  void release(std::byte* data, std::uint64_t capacity, std::uint64_t used);
  std::byte* take(std::uint64_t& size);
  void map_more(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t mapped_locked() const;
  void check_locked(std::uint64_t bytes) const;
  [[nodiscard]] std::uint64_t left_locked() const;  // of the budget

  MemoryResource& memory_;
  mutable std::mutex mutex_;  // everything below, and what promises have left
  std::uint64_t budget_;
  std::vector<std::unique_ptr<Region>> regions_;
  std::size_t current_ = 0;                        // the region that is dealt from
  std::uint64_t dealt_ = 0;                        // of it
  std::multimap<std::uint64_t, std::byte*> free_;  // by size
  std::uint64_t requested_ = 0;
  std::uint64_t reserved_ = 0;
  std::uint64_t most_reserved_ = 0;
  std::uint64_t promised_ = 0;
  std::uint64_t pieces_ = 0;
};

}  // namespace kvlab
