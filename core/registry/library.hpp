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

// What a codec offers beside encoding and decoding.
struct Abilities {
  bool attend_keys = false;
  bool attend_values = false;
  bool gather = false;
};

// A plugin. One that is only described has no functions: its pointers are null, and what it offers is in `abilities`.
// Libraries are never closed, so the pointers of a loaded one live as long as the process.
struct Method {
  std::string id;
  MethodKind kind{};
  std::string version;
  std::string summary;
  std::string paper_title;
  std::string paper_arxiv;
  std::string license;
  std::string compiler;    // that built it; "": not known
  bool optimized = false;  // by it
  std::vector<Parameter> parameters;
  std::filesystem::path path;
  std::string hash;  // of the library's bytes as they were loaded, 32 digits
  Abilities abilities;
  const kvlab_descriptor* descriptor = nullptr;        // null: only described
  const kvlab_attend_keys* attend_keys = nullptr;      // null: not offered
  const kvlab_attend_values* attend_values = nullptr;  // null: not offered
  const kvlab_gather* gather = nullptr;                // null where not offered
};

// "" for a library that was optimized; else a sentence: its times are not the method's.
std::string build_warning(const Method& method);

// Opens the library in this process and checks everything that the descriptor says; throws InputError with the reason.
// Opening runs the library's initialisers, which may do anything: describe_library (description.hpp) does it in a
// child.
Method load_library(const std::filesystem::path& path);

}  // namespace kvlab
