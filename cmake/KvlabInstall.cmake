# cmake --install: the executable, the methods, the plugin headers, and find_package(kvlab) for methods out of tree.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(kvlab_package ${CMAKE_INSTALL_LIBDIR}/cmake/kvlab)
install(TARGETS kvlab RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
get_property(kvlab_methods GLOBAL PROPERTY KVLAB_METHOD_TARGETS)
install(TARGETS ${kvlab_methods} LIBRARY DESTINATION lib/kvlab/methods)
install(DIRECTORY core/include/kvlab DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS kvlab_plugin EXPORT kvlab)
install(EXPORT kvlab NAMESPACE kvlab:: DESTINATION ${kvlab_package} FILE kvlabTargets.cmake)
configure_package_config_file(cmake/kvlabConfig.cmake.in ${CMAKE_BINARY_DIR}/kvlabConfig.cmake
                              INSTALL_DESTINATION ${kvlab_package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/kvlabConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/kvlabConfig.cmake ${CMAKE_BINARY_DIR}/kvlabConfigVersion.cmake
              cmake/KvlabMethod.cmake cmake/KvlabIsa.cmake cmake/method.map
        DESTINATION ${kvlab_package})
install(DIRECTORY configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/kvlab/configs)
install(FILES LICENSE NOTICE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
