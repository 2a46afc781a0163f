// Where an arena's memory comes from: a backend's own.
#pragma once

#include <cstddef>
#include <memory>

namespace kvlab {

// Memory that goes back at the end of this object. Only the backend that gave it reads and writes it.
class Region {
 public:
  virtual ~Region() = default;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }

 protected:
  Region(std::byte* data, std::size_t size) : data_(data), size_(size) {}

 private:
  std::byte* data_;
  std::size_t size_;
};

class MemoryResource {
 public:
  virtual ~MemoryResource() = default;
  // At least that many bytes, aligned to 64. Throws std::bad_alloc. From any thread.
  virtual std::unique_ptr<Region> map(std::size_t bytes) = 0;
};

// The host's: page-aligned, in huge pages where the kernel gives them.
MemoryResource& host_memory();

}  // namespace kvlab
