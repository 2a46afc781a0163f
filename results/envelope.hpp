// Bytes that know whether they are whole: what cell files and plan files are sealed in. Little-endian:
//
//    0  8  what it is, padded with zeros: "kvcell", "kvplan"
//    8  4  version of the payload's format
//   12  4  zero
//   16  8  length of the payload
//   24 16  XXH3-128 (canonical form) of bytes 0 .. 23 and the XXH3-128 of the payload
//   40     the payload, CBOR
//
// The first 40 bytes are laid out like this in every version, so that damage is told from a file of a later kvlab.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/base/error.hpp"

namespace kvlab {

// The bytes are not what was written: cut short, altered, or never a file of this kind. What may be wrong with a file
// that is whole (another version, no permission) is a plain InputError.
struct DamagedError : InputError {
  using InputError::InputError;
};

struct Seal {
  std::string_view kind;  // at most 8 characters
  std::uint32_t version;
};

std::string seal(const Seal& seal, std::string_view payload);

// The payload, a view of `bytes`, once all of it is checked. Throws DamagedError, or InputError for another version.
std::string_view unseal(const Seal& seal, std::string_view bytes);

// All bytes of a regular file. Throws InputError, which names no file, when it cannot be read.
std::string bytes_of_file(const std::filesystem::path& path);

}  // namespace kvlab
