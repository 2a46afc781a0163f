// "did you mean": the nearest valid name for one that is not.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace kvlab {

// The candidate at the smallest edit distance (first of equals); "" when there is none.
std::string nearest(std::string_view wrong, std::span<const std::string> candidates);

// "; nearest valid name: X", "; valid: A, B, C" when nothing is near, or "; there are none".
std::string suggestion(std::string_view wrong, std::span<const std::string> candidates);

// "a, b, c"
std::string join(std::span<const std::string> items, std::string_view separator = ", ");

}  // namespace kvlab
