// The parameter values that a method is checked with.
#pragma once

#include <string>
#include <vector>

#include "core/method/instance.hpp"

namespace kvlab::conformance {

// The defaults first, then each parameter on its own: at the ends of its range (a float in its middle too), at
// each listed value, at each choice.
std::vector<MethodSpec> settings(const Method& method);

// "bits=4 symmetric=false"; "" where there are no parameters.
std::string text_of(const MethodSpec& spec);

}  // namespace kvlab::conformance
