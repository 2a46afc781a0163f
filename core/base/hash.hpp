// Identities: XXH3, written as hexadecimal digits.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>

namespace kvlab {

std::string hash_of(std::string_view bytes);                  // 16 digits: 64 bits
std::string hash_of_file(const std::filesystem::path& path);  // 32 digits: 128 bits; throws InputError
std::array<char, 16> digest_of(std::string_view bytes);       // 128 bits, the same on every machine

}  // namespace kvlab
