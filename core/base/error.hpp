// What the host throws. The sentence is complete: it names its place (file:line:column, a flag, a path) and what to
// do about it; the caller adds nothing.
#pragma once

#include <stdexcept>

namespace kvlab {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The input was refused: an experiment, a trace, a result, a plugin, a flag. Exit code 2.
struct InputError : Error {
  using Error::Error;
};

}  // namespace kvlab
