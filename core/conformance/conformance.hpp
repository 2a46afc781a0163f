// What abi.h asks of every method, checked: each check in a child process of its own, with limits on time and memory,
// so that a method which crashes, hangs or ends its process fails one check, and is named with the call it was in.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/registry/library.hpp"

namespace kvlab::conformance {

struct CheckInfo {
  std::string name;
  std::string question;  // what is asked of the method
};

// In the order in which they run.
std::vector<CheckInfo> checks_of(MethodKind kind);

struct Outcome {
  std::string check;
  bool ok;
  std::string reason;  // why not: what, in which call, with which parameters, dtype, shape
};

// `method` as it was described: its library is loaded in the child alone. `seconds` of a processor are the check's
// limit. Throws Error where no process can be started.
Outcome check_method(const Method& method, const std::string& check, double seconds);

}  // namespace kvlab::conformance
