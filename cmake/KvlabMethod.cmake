# kvlab_add_method(NAME SOURCES file...)
#
# Builds one method: target kvlab_method_NAME, a module NAME.so that exports kvlab_plugin and nothing else. A package
# that found kvlab calls it as kvlab itself does; link what the method needs to the target. Where neither a build type
# nor CMAKE_CXX_FLAGS says how to optimize, it is built as Release is: a slow build would be taken for a slow method.
#
# Two traps that this shuts: g++ emits statics of inline functions as unique across the process, so that two copies of
# a library meet in them (-fno-gnu-unique); and templates of std have default visibility (the version script).
set(KVLAB_METHOD_SYMBOLS ${CMAKE_CURRENT_LIST_DIR}/method.map)

include(${CMAKE_CURRENT_LIST_DIR}/KvlabIsa.cmake)

function(kvlab_add_method name)
  cmake_parse_arguments(PARSE_ARGV 1 method "" "" "SOURCES")
  set(target kvlab_method_${name})
  add_library(${target} MODULE ${method_SOURCES})
  kvlab_isa_flags(${method_SOURCES})
  target_link_libraries(${target} PRIVATE kvlab::plugin)
  target_compile_options(${target} PRIVATE -ffp-contract=off $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES AND NOT CMAKE_CXX_FLAGS MATCHES "(^| )-O")
    separate_arguments(release UNIX_COMMAND "${CMAKE_CXX_FLAGS_RELEASE}")
    target_compile_options(${target} PRIVATE ${release})
  endif()
  target_link_options(${target} PRIVATE -Wl,--version-script=${KVLAB_METHOD_SYMBOLS})
  set_target_properties(${target} PROPERTIES
    PREFIX "" OUTPUT_NAME ${name} SUFFIX .so
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    LINK_DEPENDS ${KVLAB_METHOD_SYMBOLS})
endfunction()
