// One sentence for a file that cannot be used, wherever its name was given.
#pragma once

#include <filesystem>

namespace kvlab {

// Throws InputError: "PATH: there is no such file", "PATH: it is a folder", "PATH: it cannot be read: WHY".
void require_file(const std::filesystem::path& path);

}  // namespace kvlab
