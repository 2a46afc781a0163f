// Who computed a number.
#pragma once

namespace kvlab {

inline constexpr const char* version = KVLAB_VERSION;

// Part of every cell's identity: raised when a fix in the core changes numbers, so that old cells are measured again.
inline constexpr int results_epoch = 3;

}  // namespace kvlab
