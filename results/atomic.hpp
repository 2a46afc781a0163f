// Files that are there whole or not at all.
#pragma once

#include <filesystem>
#include <string_view>

namespace kvlab {

// Writes `bytes` to a new file beside `path` (its name and ".tmp." and 16 random digits), fsyncs, renames it over
// `path`, fsyncs the folder. Throws Error, "PATH: cannot be written: why", and leaves what was there before; a full
// disk is such an error.
void write_atomically(const std::filesystem::path& path, std::string_view bytes);

// Removes the new files that writers left in `folder` when they were killed: those whose name begins with `stem` and
// that no process is writing, on whatever machine, as far as the file system has locks. Throws nothing.
void remove_left_behind(const std::filesystem::path& folder, std::string_view stem);

}  // namespace kvlab
