// Memory of the laboratory: page-aligned, in huge pages where the kernel gives them, counted.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>

namespace kvlab {

// An anonymous mapping. Pages cost memory only once touched. Throws std::bad_alloc.
class Mapping {
 public:
  Mapping() = default;
  explicit Mapping(std::size_t bytes);
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  template <class T>
  [[nodiscard]] std::span<T> as() const {
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Scratch that grows and is kept warm: 64-byte aligned, uninitialised, the contents lost when it grows.
class Buffer {
 public:
  template <class T>
  T* ensure(std::size_t count) {
    return reinterpret_cast<T*>(ensure_bytes(count * sizeof(T)));
  }

 private:
  std::byte* ensure_bytes(std::size_t bytes);

  struct Free {
    void operator()(std::byte* data) const { ::operator delete[](data, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte[], Free> data_;
  std::size_t size_ = 0;
};

// Deals out pieces of one mapping, front to back, 64-byte aligned; all are given back at once. `allocate` may be
// called from several threads at a time. It keeps two sums, which the cache's own byte count is tested against:
// requested() what was asked for, and reserved() that with the padding that alignment took.
class Arena {
 public:
  static constexpr std::size_t alignment = 64;
  static constexpr std::size_t padded(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

  // Room for that many padded bytes; throws std::bad_alloc. An arena that has the room keeps its warm pages.
  void reset(std::size_t capacity);
  std::byte* allocate(std::size_t bytes);  // throws std::bad_alloc when the room is used up

  [[nodiscard]] std::size_t capacity() const { return mapping_.size(); }
  [[nodiscard]] std::uint64_t requested() const { return requested_; }
  [[nodiscard]] std::uint64_t reserved() const { return used_; }

 private:
  Mapping mapping_;
  std::atomic<std::uint64_t> used_{0};
  std::atomic<std::uint64_t> requested_{0};
};

}  // namespace kvlab
