# kvlab_isa_flags(file...)
#
# Files named *_avx2.cpp, *_avx512.cpp and *_avx512vnni.cpp are compiled for that instruction set (kvlab/isa.hpp says
# what each holds and how one is chosen at run time); others are left as they are. Elsewhere than on x86-64 none is.
# Contraction stays off: a fused multiply-add is written where it is meant.
function(kvlab_isa_flags)
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    return()
  endif()
  set(avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2)
  set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd -mprefer-vector-width=512)
  set(avx512vnni ${avx512} -mavx512vnni -mavx512vbmi)
  foreach(isa avx2 avx512 avx512vnni)
    set(sources ${ARGN})
    list(FILTER sources INCLUDE REGEX "_${isa}\\.cpp$")
    if(sources)
      # A warning of g++ 12 that is about its own headers (its bug 105593).
      set_property(SOURCE ${sources} APPEND PROPERTY COMPILE_OPTIONS ${${isa}} -Wno-maybe-uninitialized -Wno-uninitialized)
    endif()
  endforeach()
endfunction()
