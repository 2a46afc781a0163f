// The time of day, as text.
#pragma once

#include <string>

namespace kvlab {

std::string utc_now();  // "2026-11-27T19:30:00Z"

}  // namespace kvlab
