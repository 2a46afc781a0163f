// Scratch of one thread: buffers that grow to what was needed once, and stay.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/memory.hpp"

namespace kvlab {

struct Workspace {
  Buffer rows;
  Buffer more_rows;
  Buffer encoded;
  Buffer codec_scratch;
  Buffer floats;
  Buffer prepared;
  std::vector<std::uint32_t> positions;
  std::vector<std::uint32_t> kept;
  std::vector<std::uint32_t> survivors;
};

}  // namespace kvlab
