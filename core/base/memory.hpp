// Memory of the laboratory: page-aligned, in huge pages where the kernel gives them.
#pragma once

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

}  // namespace kvlab
