# LAPACK's ssyevd and BLAS's ssyrk and sgemm: OpenBLAS as Debian ships it, linked by this plugin alone. It must be the
# build with threads (kept to one a call, lapack.hpp): Debian's serial build has no locks, and calls from several
# threads at once return wrong numbers. The run path makes sure of it, whatever the system's alternatives say.
find_library(KVLAB_OPENBLAS openblas HINTS /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-pthread REQUIRED)
cmake_path(GET KVLAB_OPENBLAS PARENT_PATH KVLAB_OPENBLAS_FOLDER)
target_link_libraries(${KVLAB_METHOD_TARGET} PRIVATE ${KVLAB_OPENBLAS})
set_target_properties(${KVLAB_METHOD_TARGET} PROPERTIES INSTALL_RPATH ${KVLAB_OPENBLAS_FOLDER})
