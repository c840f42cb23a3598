# One static library per folder of src/, made of what lies in it:
#   *_test.cc   tests, linked into <folder>_test      *_cpu.cc   compiled once per instruction-set tier
#   *_spec.cc   op specs: part of the library (doctor runs them)     everything else: the library
# Adding a file or an op folder edits nothing here.

function(ferry_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  set(kernels ${sources})
  list(FILTER kernels INCLUDE REGEX "_cpu\\.cc$")
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "_(cpu|test)\\.cc$")

  set(objects "")
  if(kernels)
    foreach(tier IN LISTS FERRY_TIERS)
      add_library(ferry_${name}_${tier} OBJECT ${kernels})
      target_link_libraries(ferry_${name}_${tier} PRIVATE ferry_flags)
      target_compile_options(ferry_${name}_${tier} PRIVATE ${FERRY_KERNEL_OPTIONS} ${FERRY_TIER_FLAGS_${tier}})
      target_compile_definitions(ferry_${name}_${tier} PRIVATE FERRY_TIER=${tier} FERRY_TIER_${tier}=1)
      ferry_join_sources(ferry_${name}_${tier} ${kernels})
      list(APPEND objects $<TARGET_OBJECTS:ferry_${name}_${tier}>)
    endforeach()
  endif()

  if(NOT sources)
    add_library(ferry_${name} INTERFACE)
    set(scope INTERFACE)
  else()
    add_library(ferry_${name} STATIC ${sources} ${objects})
    ferry_use_common_headers(ferry_${name})
    ferry_join_sources(ferry_${name} ${sources})
    set(scope PUBLIC)
  endif()
  target_link_libraries(ferry_${name} ${scope} ferry_flags ${ARG_LIBS} ${FERRY_LIBS_${name}})
  foreach(dep IN LISTS ARG_DEPS)
    target_link_libraries(ferry_${name} ${scope} ferry_${dep})
  endforeach()
  set_property(GLOBAL PROPERTY FERRY_DEPS_${name} ${ARG_DEPS})
  if(name IN_LIST FERRY_COLD)
    target_compile_options(ferry_${name} PRIVATE ${FERRY_COLD_OPTIONS})
  elseif((FERRY_SANITIZE OR FERRY_SANITIZE_THREADS) AND name IN_LIST FERRY_HOT)
    target_compile_options(ferry_${name} PRIVATE -O1)
  endif()
  if(FERRY_FUZZERS AND name IN_LIST FERRY_FUZZED)
    target_compile_options(ferry_${name} PRIVATE -fsanitize=fuzzer-no-link)
  endif()

  if(FERRY_TESTS AND tests)
    add_executable(${name}_test ${tests})
    ferry_use_test_headers(${name}_test)
    ferry_join_sources(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE ferry_${name} ferry_test_main)
    target_compile_options(${name}_test PRIVATE ${FERRY_TEST_OPTIONS})
    target_compile_definitions(${name}_test PRIVATE FERRY_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    ferry_ctest(${name}_test ${name})
    set_property(GLOBAL APPEND PROPERTY FERRY_MODULES_WITH_TESTS ${name})
  endif()
endfunction()

function(ferry_program name folder)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${folder}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  add_executable(${name} ${sources})
  ferry_use_common_headers(${name})
  target_link_libraries(${name} PRIVATE ferry_flags ${FERRY_LIBS_${folder}})
  if(folder IN_LIST FERRY_COLD)
    target_compile_options(${name} PRIVATE ${FERRY_COLD_OPTIONS})
  endif()
  foreach(dep IN LISTS ARG_DEPS)
    target_link_libraries(${name} PRIVATE ferry_${dep})
  endforeach()
endfunction()

# src/ops/<op>/<op>_spec.cc defines OpSpec <op>_spec(); this writes the list of them all.
function(ferry_op_list output)
  file(GLOB specs CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/*/*_spec.cc)
  list(SORT specs)
  set(declarations "")
  set(makers "")
  foreach(path IN LISTS specs)
    get_filename_component(name ${path} NAME_WE)
    string(REGEX REPLACE "_spec$" "" op ${name})
    string(APPEND declarations "OpSpec ${name}();\n")
    string(APPEND makers "      {\"${op}\", ${name}},\n")
  endforeach()
  file(CONFIGURE OUTPUT ${output} CONTENT
"// Generated from the folders of src/ops.
#include \"ops/spec.h\"

namespace ferry::ops {

${declarations}
std::span<const OpSpecMaker> op_spec_makers() {
  static constexpr OpSpecMaker kMakers[] = {
${makers}  };
  return kMakers;
}

std::vector<OpSpec> all_op_specs() {
  std::vector<OpSpec> specs;
  for (const OpSpecMaker& maker : op_spec_makers()) specs.push_back(maker.make());
  return specs;
}

}  // namespace ferry::ops
" @ONLY)
endfunction()
