// Memory that tells who goes beyond it: a page that may not be touched follows it, and the bytes that lie beside it are
// compared afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/base/error.hpp"
#include "core/base/memory.hpp"

namespace kvlab::conformance {

// A method did not do what abi.h asks of it: the sentence says what.
struct Failure : Error {
  using Error::Error;
};

class Guarded {
 public:
  // `size` bytes at a multiple of `alignment` (a power of two, at most a page), as near to the guard as that allows.
  // Its bytes are 0xA5; scratch is left as it comes, which is faster.
  explicit Guarded(std::size_t size, std::size_t alignment = 64, bool filled = true);
  static Guarded scratch(std::size_t size) { return Guarded(size, 64, false); }

  template <class T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  [[nodiscard]] std::size_t size() const { return size_; }

  void protect();  // from here on a write is a crash
  // Throws Failure where a byte beside the memory was written; `call` is who had it.
  void expect_untouched_beside(const std::string& call) const;

 private:
  Mapping mapping_;
  std::size_t size_;
  std::size_t usable_;  // of the mapping, before the guard
  std::byte* data_;
  std::byte* margin_;  // what is compared before the memory starts here
};

// A page that must not be read: where a method is given what it did not ask for.
const void* forbidden();

}  // namespace kvlab::conformance
