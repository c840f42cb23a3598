# What ./run test does beyond the ordinary tests: the suites that also run sanitized and on aarch64,
# the pass with Clang, and ctest's entries for the results of those other builds.

# The folders whose tests run three times: plain, under ASan + UBSan, and cross-built under qemu-user.
set(FERRY_CHECKED base ops text checkpoint data models)
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
      add_dependencies(checked_tests ascend_test ascend_ops_test)  # the backend, on software Ascend
    endif()
    # Under ThreadSanitizer: what runs beside each other is the backend and the chip's streams.
    add_custom_target(race_tests DEPENDS ascend_sim_test ascend_test)
  endif()
endif()

if(FERRY_CHECKS)
  enable_testing()
  # Clang reads every source with the same warnings; a file is read again when it or a header changes.
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/*.cc ${CMAKE_SOURCE_DIR}/tests/*.cc
       ${CMAKE_SOURCE_DIR}/ascend_sim/*.cc)
  set(options $<TARGET_PROPERTY:ferry_flags,INTERFACE_COMPILE_OPTIONS>)
  set(stamps "")
  foreach(source IN LISTS sources)
    file(RELATIVE_PATH relative ${CMAKE_SOURCE_DIR} ${source})
    set(tiers all)
    set(includes -I${CMAKE_SOURCE_DIR}/src -I${CMAKE_SOURCE_DIR}/tests)
    if(relative MATCHES "^ascend_sim/")
      set(includes -I${CMAKE_SOURCE_DIR}/ascend_sim)
    endif()
    if(relative MATCHES "_cpu\\.cc$")
      set(tiers ${FERRY_TIERS})
    endif()
    foreach(tier IN LISTS tiers)
      set(stamp ${CMAKE_BINARY_DIR}/clang_syntax/${relative}.${tier})
      get_filename_component(folder ${stamp} DIRECTORY)
      file(MAKE_DIRECTORY ${folder})
      set(tier_options "")
      if(NOT tier STREQUAL all)
        set(tier_options ${FERRY_TIER_FLAGS_${tier}} -DFERRY_TIER=${tier} -DFERRY_TIER_${tier}=1)
      endif()
      add_custom_command(OUTPUT ${stamp} DEPFILE ${stamp}.d
        COMMAND clang++ -std=c++20 -fsyntax-only ${includes}
                "-DFERRY_SOURCE_DIR=\"\"" "-DFERRY_PROGRAM=\"\"" "-DFERRY_ASCEND_SIM=\"\"" ${options} ${tier_options} -MD -MF ${stamp}.d -MT ${stamp} ${source}
        COMMAND ${CMAKE_COMMAND} -E touch ${stamp}
        DEPENDS ${source} COMMENT "Clang reads ${relative} (${tier})" COMMAND_EXPAND_LISTS VERBATIM)
      list(APPEND stamps ${stamp})
    endforeach()
  endforeach()
  add_custom_target(clang_syntax DEPENDS ${stamps})

  # What the other build folders hold, run by this one's ctest, so that one line closes it all.
  foreach(name IN LISTS checked)
    add_test(NAME asan.${name} COMMAND ${CMAKE_SOURCE_DIR}/build-asan/${name}_test WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(asan.${name} PROPERTIES TIMEOUT 1200
      ENVIRONMENT "ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1;UBSAN_OPTIONS=print_stacktrace=1")
    add_test(NAME aarch64.${name} COMMAND qemu-aarch64 ${CMAKE_SOURCE_DIR}/build-aarch64/${name}_test
             WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(aarch64.${name} PROPERTIES TIMEOUT 1200 ENVIRONMENT "FERRY_SPECS=smallest;QEMU_LD_PREFIX=/usr/aarch64-linux-gnu")
  endforeach()
  add_test(NAME asan.ascend_sim COMMAND ${CMAKE_SOURCE_DIR}/build-asan/ascend_sim_test)
  add_test(NAME asan.ascend COMMAND ${CMAKE_SOURCE_DIR}/build-asan/tests/ascend_test)
  add_test(NAME asan.ascend_ops COMMAND ${CMAKE_SOURCE_DIR}/build-asan/tests/ascend_ops_test)
  set_tests_properties(asan.ascend_sim asan.ascend PROPERTIES TIMEOUT 1200 ENVIRONMENT "ASAN_OPTIONS=detect_leaks=1")
  # The search for leaks follows what looks like pointers, and device memory cannot be read by the host.
  set_tests_properties(asan.ascend_ops PROPERTIES TIMEOUT 1200
    ENVIRONMENT "ASAN_OPTIONS=detect_leaks=0;FERRY_ASCEND_LIBRARIES=${CMAKE_SOURCE_DIR}/build-asan/ascend_sim")
  # The Ascend backend and software Ascend, whose streams are threads. A process stops at its first report, so that
  # a child's is not lost, and does not sleep a second at its end.
  add_test(NAME tsan.ascend_sim COMMAND ${CMAKE_SOURCE_DIR}/build-tsan/ascend_sim_test)
  add_test(NAME tsan.ascend COMMAND ${CMAKE_SOURCE_DIR}/build-tsan/tests/ascend_test)
  set_tests_properties(tsan.ascend_sim tsan.ascend PROPERTIES TIMEOUT 1200
    ENVIRONMENT "TSAN_OPTIONS=halt_on_error=1:atexit_sleep_ms=20:second_deadlock_stack=1")
  set(FERRY_FUZZ_SECONDS 20 CACHE STRING "Seconds that ctest runs each fuzzer")
  file(GLOB fuzzers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/*_fuzz.cc)
  math(EXPR fuzz_timeout "${FERRY_FUZZ_SECONDS} + 300")
  foreach(source IN LISTS fuzzers)
    get_filename_component(name ${source} NAME_WE)
    add_test(NAME fuzz.${name} COMMAND ${CMAKE_SOURCE_DIR}/tests/fuzz/run.sh
             ${CMAKE_SOURCE_DIR}/build-fuzz/tests/fuzz/${name} ${FERRY_FUZZ_SECONDS})
    set_tests_properties(fuzz.${name} PROPERTIES TIMEOUT ${fuzz_timeout})
  endforeach()
endif()
