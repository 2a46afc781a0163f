# CUDA is optional and nothing here needs it. This version has no CUDA code: what is found is only said.
find_package(CUDAToolkit QUIET)
if(CUDAToolkit_FOUND)
  message(STATUS "CUDA Toolkit ${CUDAToolkit_VERSION} found; this version of kvlab has no CUDA backend yet")
else()
  message(STATUS "CUDA Toolkit not found: CPU only")
endif()
