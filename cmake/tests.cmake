# How tests become programs, and programs ctest's entries: one for each test, so that `ctest -R`, and a time
# limit, concern one test. They are listed when ctest starts, not while building; each runs in a process and a
# temporary folder of its own (tests/test_main.cc).
if(FERRY_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
  add_library(ferry_test_main STATIC ${CMAKE_SOURCE_DIR}/tests/test_main.cc)
  target_link_libraries(ferry_test_main PRIVATE ferry_flags PUBLIC GTest::gtest)
endif()

# ferry_ctest(TARGET NAME [ENVIRONMENT VARIABLE=VALUE]): the tests of a program, as NAME.<suite>.<test>.
function(ferry_ctest target name)
  cmake_parse_arguments(ARG "" "ENVIRONMENT" "" ${ARGN})
  set(properties TIMEOUT 600)
  if(ARG_ENVIRONMENT)
    list(APPEND properties ENVIRONMENT ${ARG_ENVIRONMENT})
  endif()
  gtest_discover_tests(${target} TEST_PREFIX ${name}. DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 120
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} PROPERTIES ${properties})
endfunction()
