// Whether numbers are finite, at the speed of reading them.
#pragma once

#include <cstddef>

#include "core/base/dtype.hpp"

namespace kvlab {

// No NaN and no infinity among them.
bool all_finite(Dtype dtype, const void* elements, std::size_t count);

}  // namespace kvlab
