# What ./run test does beyond the ordinary tests: the suites that also run sanitized (built by Clang) and on
# aarch64, Clang's pass over the rest, and ctest's entries for the results of those other builds.

# The folders whose tests run three times: plain, under ASan + UBSan, and cross-built under qemu-user.
set(FERRY_CHECKED base ops text grammar checkpoint data models)
get_property(with_tests GLOBAL PROPERTY FERRY_MODULES_WITH_TESTS)
set(checked "")
foreach(name IN LISTS FERRY_CHECKED)
  if(name IN_LIST with_tests)
    list(APPEND checked ${name})
  endif()
endforeach()
if(FERRY_TESTS)
  add_custom_target(checked_tests)
  foreach(name IN LISTS checked)
    add_dependencies(checked_tests ${name}_test)
  endforeach()
  if(TARGET ascend_sim_test)
    add_dependencies(checked_tests ascend_sim_test)
    if(NOT CMAKE_CROSSCOMPILING)
      # The backends, on software Ascend and software NVIDIA.
      add_dependencies(checked_tests ascend_test ascend_ops_test nvidia_sim_test cuda_test)
      # What hostile connections, and those that end anywhere, may leave behind.
      add_dependencies(checked_tests serving_test connections_test)
    endif()
    # Under ThreadSanitizer: what runs beside each other is the backend and the chip's streams; and a server's
    # threads, of which the engine's has its own for large products.
    add_custom_target(race_tests DEPENDS ascend_sim_test ascend_test serving_test connections_test)
  endif()
endif()

if(FERRY_CHECKS)
  enable_testing()
  # Clang reads, with the same warnings, every source that it does not compile for the sanitized suites: the
  # folders that these and the fuzzers need, their tests, and software Ascend. A file is read again when it or a
  # header changes.
  set(compiled "")
  set(pending ${checked} serve)
  while(pending)
    list(POP_FRONT pending name)
    if(NOT name IN_LIST compiled)
      list(APPEND compiled ${name})
      get_property(below GLOBAL PROPERTY FERRY_DEPS_${name})
      list(APPEND pending ${below})
    endif()
  endwhile()
  list(JOIN compiled "|" compiled)
  list(JOIN checked "|" tested)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/src/*.cc
       ${CMAKE_SOURCE_DIR}/tests/*.cc)
  list(FILTER sources EXCLUDE REGEX "^src/(${tested})/|^tests/((ascend|cuda)_test\\.cc|fuzz/)")
  set(untested_tests ${sources})
  list(FILTER untested_tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "^src/(${compiled})/")
  list(APPEND sources ${untested_tests})
  list(REMOVE_DUPLICATES sources)
  set(options $<TARGET_PROPERTY:ferry_flags,INTERFACE_COMPILE_OPTIONS>)
  set(stamps "")
  foreach(source IN LISTS sources)
    set(stamp ${CMAKE_BINARY_DIR}/clang_syntax/${source})
    get_filename_component(folder ${stamp} DIRECTORY)
    file(MAKE_DIRECTORY ${folder})
    add_custom_command(OUTPUT ${stamp} DEPFILE ${stamp}.d
      COMMAND clang++ -std=c++20 -fsyntax-only -I${CMAKE_SOURCE_DIR}/src -I${CMAKE_SOURCE_DIR}/tests
              "-DFERRY_SOURCE_DIR=\"\"" "-DFERRY_PROGRAM=\"\"" "-DFERRY_ASCEND_SIM=\"\"" "-DFERRY_NVIDIA_SIM=\"\"" ${options}
              -MD -MF ${stamp}.d -MT ${stamp} ${CMAKE_SOURCE_DIR}/${source}
      COMMAND ${CMAKE_COMMAND} -E touch ${stamp}
      DEPENDS ${CMAKE_SOURCE_DIR}/${source} COMMENT "Clang reads ${source}" COMMAND_EXPAND_LISTS VERBATIM)
    list(APPEND stamps ${stamp})
  endforeach()
  add_custom_target(clang_syntax DEPENDS ${stamps})

  # What the other build folders hold, run by this one's ctest, so that one line closes it all. A suite is one
  # entry, or some that take turns at its tests: a process for each test costs more there than the tests.
  # ferry_checked(NAME SHARDS ENVIRONMENT COMMAND...)
  function(ferry_checked name shards environment)
    math(EXPR last "${shards} - 1")
    foreach(shard RANGE ${last})
      set(entry ${name})
      if(shards GREATER 1)
        math(EXPR nth "${shard} + 1")
        set(entry ${name}.${nth}of${shards})
      endif()
      add_test(NAME ${entry} COMMAND ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
      set_tests_properties(${entry} PROPERTIES TIMEOUT 1200
        ENVIRONMENT "${environment};GTEST_TOTAL_SHARDS=${shards};GTEST_SHARD_INDEX=${shard}")
    endforeach()
  endfunction()
  set(shards_ops 4)
  set(shards_ascend_ops 2)
  set(shards_grammar 2)
  set(asan ${CMAKE_SOURCE_DIR}/build-asan)
  # How wide a tolerance is needs to be tried but once.
  set(asan_environment "ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1;UBSAN_OPTIONS=print_stacktrace=1;GTEST_FILTER=-Mutants.EachCaseFindsAFactorItself")
  # The emulator keeps limits of memory to itself: it neither sets them nor obeys them for its guest.
  set(aarch64_environment "FERRY_SPECS=smallest;FERRY_EMULATOR=qemu-user;QEMU_LD_PREFIX=/usr/aarch64-linux-gnu;GTEST_FILTER=-LimitsDeathTest.UlimitsAreFollowed:LimitsDeathTest.APoolWorksWithTheThreadsThatThereAre:Mutants.EachCaseFindsAFactorItself")
  foreach(name IN LISTS checked)
    if(NOT DEFINED shards_${name})
      set(shards_${name} 1)
    endif()
    ferry_checked(asan.${name} ${shards_${name}} "${asan_environment}" ${asan}/${name}_test)
    ferry_checked(aarch64.${name} 1 "${aarch64_environment}" qemu-aarch64 ${CMAKE_SOURCE_DIR}/build-aarch64/${name}_test)
  endforeach()
  ferry_checked(asan.ascend_sim 1 "${asan_environment}" ${asan}/ascend_sim_test)
  ferry_checked(asan.ascend 1 "${asan_environment}" ${asan}/tests/ascend_test)
  # The search for leaks follows what looks like pointers, and device memory cannot be read by the host.
  ferry_checked(asan.ascend_ops ${shards_ascend_ops} "ASAN_OPTIONS=detect_leaks=0;FERRY_ASCEND_LIBRARIES=${asan}/ascend_sim"
                ${asan}/tests/ascend_ops_test)
  ferry_checked(asan.serving 1 "${asan_environment}" ${asan}/tests/serving_test)
  ferry_checked(asan.connections 1 "${asan_environment}" ${asan}/tests/connections_test)
  ferry_checked(asan.nvidia_sim 1 "${asan_environment}" ${asan}/nvidia_sim_test)
  ferry_checked(asan.cuda 1 "ASAN_OPTIONS=detect_leaks=0" ${asan}/tests/cuda_test --gtest_filter=-CudaBits.*)
  # Whose threads meet: the Ascend backend and software Ascend, and the server and its engine. A process stops at its first report, so that
  # a child's is not lost, and does not sleep a second at its end.
  set(tsan_environment "TSAN_OPTIONS=halt_on_error=1:atexit_sleep_ms=20:second_deadlock_stack=1")
  ferry_checked(tsan.ascend_sim 1 "${tsan_environment}" ${CMAKE_SOURCE_DIR}/build-tsan/ascend_sim_test)
  ferry_checked(tsan.ascend 1 "${tsan_environment}" ${CMAKE_SOURCE_DIR}/build-tsan/tests/ascend_test)
  ferry_checked(tsan.serving 1 "${tsan_environment}" ${CMAKE_SOURCE_DIR}/build-tsan/tests/serving_test)
  ferry_checked(tsan.connections 1 "${tsan_environment}" ${CMAKE_SOURCE_DIR}/build-tsan/tests/connections_test)
  set(FERRY_FUZZ_SECONDS 20 CACHE STRING "Seconds that ctest runs each fuzzer")
  file(GLOB fuzzers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/*_fuzz.cc ${CMAKE_SOURCE_DIR}/nvidia_sim/*/*_fuzz.cc)
  math(EXPR fuzz_timeout "${FERRY_FUZZ_SECONDS} + 300")
  foreach(source IN LISTS fuzzers)
    get_filename_component(name ${source} NAME_WE)
    add_test(NAME fuzz.${name} COMMAND ${CMAKE_SOURCE_DIR}/tests/fuzz/run.sh
             ${CMAKE_SOURCE_DIR}/build-asan/tests/fuzz/${name} ${FERRY_FUZZ_SECONDS})
    set_tests_properties(fuzz.${name} PROPERTIES TIMEOUT ${fuzz_timeout})
  endforeach()
endif()
