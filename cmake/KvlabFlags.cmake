# How everything of ours is compiled: target kvlab_flags.
add_library(kvlab_flags INTERFACE)
target_compile_features(kvlab_flags INTERFACE cxx_std_20)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

# No contraction into fused multiply-adds: a result must not depend on the instruction set it was compiled for.
target_compile_options(kvlab_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor
                                             -Wold-style-cast -Werror -ffp-contract=off
                                             # g++ 12 sees overlaps in std::string's operator+ (its bug 105329).
                                             $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
target_include_directories(kvlab_flags INTERFACE ${CMAKE_SOURCE_DIR})

# address: with undefined behaviour; thread.
set(KVLAB_SANITIZE "" CACHE STRING "Sanitizer: address or thread")
if(KVLAB_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(KVLAB_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
elseif(KVLAB_SANITIZE)
  message(FATAL_ERROR "KVLAB_SANITIZE is '${KVLAB_SANITIZE}'; valid: address, thread")
endif()
if(KVLAB_SANITIZE)
  add_compile_definitions(KVLAB_SANITIZED)
endif()
