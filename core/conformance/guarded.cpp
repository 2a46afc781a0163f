#include "core/conformance/guarded.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace kvlab::conformance {
namespace {

constexpr int fill = 0xA5;

std::size_t page() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }
std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

Guarded::Guarded(std::size_t size, std::size_t alignment, bool filled)
    : mapping_(round_up(size + alignment, page()) + page()), size_(size), usable_(mapping_.size() - page()) {
  data_ = mapping_.data() + (usable_ - size) / alignment * alignment;
  margin_ = data_ - std::min<std::ptrdiff_t>(256, data_ - mapping_.data());
  std::byte* end = mapping_.data() + usable_;
  std::memset(margin_, fill, static_cast<std::size_t>((filled ? end : data_) - margin_));
  std::memset(data_ + size, fill, static_cast<std::size_t>(end - data_) - size);
  if (mprotect(mapping_.data() + usable_, page(), PROT_NONE) != 0) throw std::bad_alloc();
}

void Guarded::protect() {
  if (mprotect(mapping_.data(), usable_, PROT_READ) != 0) throw std::bad_alloc();
}

void Guarded::expect_untouched_beside(const std::string& call) const {
  const auto is_touched = [](std::byte b) { return b != static_cast<std::byte>(fill); };
  const std::byte* end = data_ + size_;
  const std::byte* guard = mapping_.data() + usable_;
  if (std::any_of<const std::byte*>(margin_, data_, is_touched)) {
    throw Failure(call + " wrote before its buffer of " + std::to_string(size_) + " bytes");
  }
  if (std::any_of(end, guard, is_touched)) {
    throw Failure(call + " wrote beyond its buffer of " + std::to_string(size_) + " bytes");
  }
}

const void* forbidden() {
  static const Mapping page_of_none = [] {
    Mapping mapping(page());
    if (mprotect(mapping.data(), mapping.size(), PROT_NONE) != 0) throw std::bad_alloc();
    return mapping;
  }();
  return page_of_none.data();
}

}  // namespace kvlab::conformance
