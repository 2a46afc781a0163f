#include "core/kernels/kernels.hpp"

namespace kvlab {

const Kernels& kernels(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::scalar:
      break;
    case Isa::avx2:
      return detail::avx2_kernels;
    case Isa::avx512:
    case Isa::avx512vnni:  // nothing here multiplies integers
      return detail::avx512_kernels;
  }
#endif
  return detail::scalar_kernels;
}

const Kernels& kernels() {
  static const Kernels& chosen = kernels(chosen_isa());
  return chosen;
}

}  // namespace kvlab
