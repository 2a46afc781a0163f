// One plugin library: opened, its descriptor checked, what it declares copied out.
#pragma once

#include <kvlab/abi.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/registry/parameter.hpp"

namespace kvlab {

enum class MethodKind : std::uint32_t { codec = KVLAB_CODEC, selector = KVLAB_SELECTOR };
constexpr const char* name_of(MethodKind kind) { return kind == MethodKind::codec ? "codec" : "selector"; }

// A loaded plugin. Libraries are never closed, so the pointers live as long as the process.
struct Method {
  std::string id;
  MethodKind kind{};
  std::string version;
  std::string summary;
  std::string paper_title;
  std::string paper_arxiv;
  std::string license;
  std::vector<Parameter> parameters;
  std::filesystem::path path;
  const kvlab_descriptor* descriptor = nullptr;
  const kvlab_attend_keys* attend_keys = nullptr;      // null: not offered
  const kvlab_attend_values* attend_values = nullptr;  // null: not offered
  const kvlab_gather* gather = nullptr;                // null where not offered
};

// Opens the library and checks everything that the descriptor says; throws InputError with the reason. A library that
// may be damaged is first tried with this in a child (core/base/child.hpp).
Method load_library(const std::filesystem::path& path);

}  // namespace kvlab
