# Headers of others that most files include, compiled once: a file takes half the time. Only for GCC: Clang's builds
# and its pass go without, so that a file that forgets to include what it uses is found.
function(ferry_use_common_headers target)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    return()
  endif()
  if(NOT TARGET ferry_common_headers)
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/common_headers.cc CONTENT "")
    add_library(ferry_common_headers OBJECT ${CMAKE_BINARY_DIR}/generated/common_headers.cc)
    target_link_libraries(ferry_common_headers PRIVATE ferry_flags)
    target_compile_options(ferry_common_headers PRIVATE -fpch-preprocess)  # for ccache
    target_precompile_headers(ferry_common_headers PRIVATE
      <algorithm> <array> <cmath> <cstdint> <cstring> <functional> <map> <memory> <optional> <span> <string>
      <string_view> <vector> <fmt/format.h>)
  endif()
  target_compile_options(${target} PRIVATE -fpch-preprocess)
  target_precompile_headers(${target} REUSE_FROM ferry_common_headers)
endfunction()
