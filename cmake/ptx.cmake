# The CUDA kernels, embedded: src/ops/<op>/<op>_cuda.ptx, which nvcc made of <op>_cuda.cu (./run ptx) and which are
# committed, so that a build needs no nvcc.

# ferry_ptx(OUTPUT): writes OUTPUT, which defines ops::cuda::ptx_of(), and again when a text changes.
function(ferry_ptx output)
  file(GLOB texts CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/*/*_cuda.ptx)
  list(SORT texts)
  set(entries "")
  foreach(path IN LISTS texts)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
    get_filename_component(name ${path} NAME_WE)
    string(REGEX REPLACE "_cuda$" "" op ${name})
    file(READ ${path} text)
    string(APPEND entries "      {\"${op}\", R\"PTX(${text})PTX\"},\n")
  endforeach()
  set(source "// Generated from src/ops/*/*_cuda.ptx.
#include <string_view>

#include \"base/check.h\"
#include \"ops/cuda/launch.h\"

#if defined(__clang__)  // the standard's minimum is less than these texts are long
#pragma clang diagnostic ignored \"-Woverlength-strings\"
#endif

namespace ferry::ops::cuda {
namespace {

struct Text {
  std::string_view op;
  const char* ptx;
};

}  // namespace

const char* ptx_of(const char* op) {
  static constexpr Text kTexts[] = {
${entries}  };
  for (const Text& text : kTexts)
    if (text.op == op) return text.ptx;
  check(false, \"no PTX of {}\", op);
  return nullptr;
}

}  // namespace ferry::ops::cuda
")
  set(old "")
  if(EXISTS ${output})
    file(READ ${output} old)
  endif()
  if(NOT "${old}" STREQUAL "${source}")
    file(WRITE ${output} "${source}")
  endif()
endfunction()
