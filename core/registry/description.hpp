// What a library says of itself, found out without running any of its code in this process.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/registry/library.hpp"

namespace kvlab {

// Loads the library in a child process and brings back what it declares. Throws InputError with the reason, also where
// the library crashes, hangs (20 s) or ends the child. The method has no functions.
Method describe_library(const std::filesystem::path& path);

// A method's declarations as bytes, and out of them. What comes out of a library's process is checked like anything
// that came from a stranger: InputError.
std::string description_of(const Method& method);
Method method_of(std::string_view description, const std::filesystem::path& path);

}  // namespace kvlab
