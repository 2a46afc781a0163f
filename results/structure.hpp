// HDF5 files of strangers. They are read in a child process only, their structure before their values.
//
// A file is refused, and the object named, where it leads out of itself (external links, external storage, virtual
// datasets, links and filters of plugins) or declares more than it can hold: of values that are not compressed as many
// bytes as are stored, of deflated ones 1032 times as many, which is the most that deflate can do, and all that is
// stored no more than the file's own size. Filters: at most one deflate; shuffle and fletcher32, which change no size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "results/hdf5.hpp"

namespace kvlab::h5 {

// Bytes of the values that a file declares and stores, as they lie in memory.
struct Declared {
  std::uint64_t all = 0;
  std::uint64_t largest = 0;  // of one dataset, or one chunk
  std::uint64_t file = 0;     // the file's own size: texts of variable length are somewhere in it
};

// Reads no values. Throws InputError.
Declared check_structure(const Object& file, std::uint64_t file_bytes);

struct StrangerReader {
  std::function<std::uint64_t(const Declared&)> memory;  // bytes that `read` may take, for what is declared
  std::function<std::string(const Object& file)> read;   // what it returns is the answer
};

// Checks the structure and reads, in a child: 64 MiB and as much as the file (1 GiB at most) for the structure, then
// what `reader.memory` says; 10 s of processor time and 1 s per 50 MB of the file. Throws InputError that begins with
// the path.
std::string read_stranger(const std::filesystem::path& path, const StrangerReader& reader);

}  // namespace kvlab::h5
