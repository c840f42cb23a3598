# Headers of others that most files include, compiled once: a file takes half the time. Only for GCC: Clang's builds
# and its pass go without, so that a file that forgets to include what it uses is found. Tests have a set of their own,
# with GoogleTest: a small one takes two thirds of the time. (JSON's header in it would cost every file that does without
# more than it spares the others.)
set(FERRY_COMMON_HEADERS <algorithm> <array> <cmath> <cstdint> <cstring> <functional> <map> <memory> <optional> <span>
    <string> <string_view> <vector> <fmt/format.h>)

# ferry_precompile(SET LIBRARIES HEADERS...): an object library whose headers other targets reuse
function(ferry_precompile set libraries)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/${set}.cc CONTENT "")
  add_library(${set} OBJECT ${CMAKE_BINARY_DIR}/generated/${set}.cc)
  target_link_libraries(${set} PRIVATE ${libraries})
  target_compile_options(${set} PRIVATE -fpch-preprocess)  # for ccache
  target_precompile_headers(${set} PRIVATE ${ARGN})
endfunction()

function(ferry_reuse_headers target set)
  target_compile_options(${target} PRIVATE -fpch-preprocess)
  target_precompile_headers(${target} REUSE_FROM ${set})
endfunction()

function(ferry_use_common_headers target)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    return()
  endif()
  if(NOT TARGET ferry_common_headers)
    ferry_precompile(ferry_common_headers ferry_flags ${FERRY_COMMON_HEADERS})
  endif()
  ferry_reuse_headers(${target} ferry_common_headers)
endfunction()

function(ferry_use_test_headers target)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    return()
  endif()
  if(NOT TARGET ferry_test_headers)
    ferry_precompile(ferry_test_headers "ferry_flags;GTest::gtest" ${FERRY_COMMON_HEADERS} <gtest/gtest.h>)
  endif()
  ferry_reuse_headers(${target} ferry_test_headers)
endfunction()
