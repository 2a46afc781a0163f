// Files that are there whole or not at all.
#pragma once

#include <filesystem>
#include <functional>

namespace kvlab {

// Writes with `write` to a name beside `path`, fsyncs, renames over it, fsyncs the folder. What `write` throws passes through, and what it wrote
// is removed.
void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path&)>& write);

}  // namespace kvlab
