#include "core/base/memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <utility>

namespace kvlab {

Mapping::Mapping(std::size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  // First touch of small pages is the slowest thing a program can do; refused huge pages are no error.
  constexpr std::size_t huge_page = std::size_t{2} << 20;
  if (bytes >= huge_page) madvise(data, bytes, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(data);
}

Mapping::~Mapping() {
  if (data_ != nullptr) munmap(data_, size_);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

std::byte* Buffer::ensure_bytes(std::size_t bytes) {
  if (bytes > size_ || data_ == nullptr) {
    data_.reset();
    size_ = std::max(bytes, std::size_t{64});
    data_.reset(static_cast<std::byte*>(::operator new[](size_, std::align_val_t{64})));
  }
  return data_.get();
}

}  // namespace kvlab
