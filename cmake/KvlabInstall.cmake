# cmake --install: the executable, the methods, the plugin headers and the core, and find_package(kvlab) for methods and
# for programs out of tree.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(kvlab_package ${CMAKE_INSTALL_LIBDIR}/cmake/kvlab)
install(TARGETS kvlab RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
get_property(kvlab_methods GLOBAL PROPERTY KVLAB_METHOD_TARGETS)
install(TARGETS ${kvlab_methods} LIBRARY DESTINATION lib/kvlab/methods)
install(DIRECTORY core/include/kvlab DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# The host's side for programs that decode: find_package(kvlab COMPONENTS core), target kvlab::core.
install(TARGETS kvlab_core EXPORT kvlab_core ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY core DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/kvlab_core FILES_MATCHING PATTERN "*.hpp"
        PATTERN include EXCLUDE PATTERN examples EXCLUDE)
install(EXPORT kvlab_core NAMESPACE kvlab:: DESTINATION ${kvlab_package} FILE kvlabCoreTargets.cmake)
install(TARGETS kvlab_plugin EXPORT kvlab)
install(EXPORT kvlab NAMESPACE kvlab:: DESTINATION ${kvlab_package} FILE kvlabTargets.cmake)
configure_package_config_file(cmake/kvlabConfig.cmake.in ${CMAKE_BINARY_DIR}/kvlabConfig.cmake
                              INSTALL_DESTINATION ${kvlab_package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/kvlabConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/kvlabConfig.cmake ${CMAKE_BINARY_DIR}/kvlabConfigVersion.cmake
              cmake/KvlabMethod.cmake cmake/KvlabIsa.cmake cmake/method.map
        DESTINATION ${kvlab_package})
install(DIRECTORY configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/kvlab/configs)
# Pages are where they are in the sources, so that the links between them hold.
install(FILES LICENSE NOTICE README.md ARCHITECTURE.md CONTRIBUTING.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES core/examples/decode.cpp DESTINATION ${CMAKE_INSTALL_DOCDIR}/core/examples)
foreach(room core experiments methods results)
  file(GLOB_RECURSE pages RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS ${room}/*.md)
  foreach(page IN LISTS pages)
    cmake_path(GET page PARENT_PATH folder)
    install(FILES ${page} DESTINATION ${CMAKE_INSTALL_DOCDIR}/${folder})
  endforeach()
endforeach()
