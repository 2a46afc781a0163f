// Scratch of one thread: buffers that grow to what was needed once, and stay.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/memory.hpp"

namespace kvlab::cpu {

struct Workspace {
  Buffer rows;
  Buffer more_rows;
  Buffer encoded;
  Buffer codec_scratch;
  Buffer floats;
  Buffer prepared;
  Buffer parts;  // of attend, for the calling thread's batch; and how many of each head are left
  Buffer parts_left;
  std::vector<std::uint32_t> positions;
};

// The calling thread's own.
Workspace& workspace();

}  // namespace kvlab::cpu
