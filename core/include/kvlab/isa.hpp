// The instruction sets that kernels are compiled for, and the choice among them at run time.
//
// A kernel is one source, compiled once an instruction set with its own flags (a file named *_avx2.cpp, *_avx512.cpp
// or *_avx512vnni.cpp gets them from the build), and a table of function pointers a set; chosen_isa() says which table
// to use. KVLAB_ISA=scalar|avx2|avx512|avx512vnni in the environment forces one.
#pragma once

#include <array>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace kvlab {

enum class Isa {
  scalar,      // the long-hand reference; any machine
  avx2,        // AVX2, FMA, F16C, BMI2
  avx512,      // and AVX-512 F, BW, DQ, VL
  avx512vnni,  // and AVX-512 VNNI, VBMI
};
inline constexpr std::array all_isas{Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512vnni};

constexpr const char* name_of(Isa isa) {
  constexpr std::array names{"scalar", "avx2", "avx512", "avx512vnni"};
  return names[static_cast<std::size_t>(isa)];
}

constexpr std::optional<Isa> parse_isa(std::string_view name) {
  for (const Isa isa : all_isas) {
    if (name == name_of(isa)) return isa;
  }
  return std::nullopt;
}

// Whether this machine can run it.
inline bool has_isa(Isa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::scalar:
      return true;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    case Isa::avx512vnni:
      return avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
  }
  return false;
#else
  return isa == Isa::scalar;
#endif
}

// What KVLAB_ISA names, else the best that the machine has. A name that means nothing, or that the machine cannot run,
// counts as unset here: the host refuses it before any plugin is loaded.
inline Isa chosen_isa() {
  if (const char* name = std::getenv("KVLAB_ISA"); name != nullptr) {
    if (const auto isa = parse_isa(name); isa && has_isa(*isa)) return *isa;
  }
  Isa best = Isa::scalar;
  for (const Isa isa : all_isas) {
    if (has_isa(isa)) best = isa;
  }
  return best;
}

}  // namespace kvlab
