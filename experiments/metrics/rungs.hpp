// Which codec of a ladder holds how many tokens.
#pragma once

#include <vector>

#include "core/cache/manager.hpp"

namespace kvlab {

struct RungTokens {
  const char* role;  // keys, values
  int rung;          // -1: raw
  double tokens;     // kept ones, mean per head and layer
};

// All rungs of both roles, those of a role with a codec.
std::vector<RungTokens> tokens_on_rungs(const CacheManager& cache);

}  // namespace kvlab
