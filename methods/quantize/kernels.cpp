#include "kernels.hpp"

namespace quantize {

const Kernels* kernels(kvlab::Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case kvlab::Isa::scalar:
      break;
    case kvlab::Isa::avx2:
      return &avx2_kernels;
    case kvlab::Isa::avx512:
      return &avx512_kernels;
    case kvlab::Isa::avx512vnni:
      return &avx512vnni_kernels;
  }
#endif
  return nullptr;
}

}  // namespace quantize
