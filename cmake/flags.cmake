# Compiler flags for everything. Bits before speed: no contraction, no fast-math.
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
endif()

add_library(ferry_flags INTERFACE)
target_include_directories(ferry_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(ferry_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  -Wno-missing-field-initializers  # designated initialisers leave out what has a default
  -Werror
  -ffp-contract=off -fno-math-errno -fvisibility=hidden
  # GCC 12.2 drops the rounding of two neighbouring double -> float -> double conversions that it vectorises.
  -fno-tree-slp-vectorize)
if(FERRY_SANITIZE)
  target_compile_definitions(ferry_flags INTERFACE FERRY_ADDRESS_SANITIZER)
  target_compile_options(ferry_flags INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1)
  target_link_options(ferry_flags INTERFACE -fsanitize=address,undefined)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    # Names of the vendor's types are our own on one side and software Ascend's on the other.
    target_compile_options(ferry_flags INTERFACE -fno-sanitize=function,vptr)
    set(FERRY_FUZZERS ON)
    set(FERRY_FUZZED base device tensor comm text grammar checkpoint data serve)  # the folders that fuzzers look into
  endif()
endif()
if(FERRY_SANITIZE_THREADS)
  # GCC's ThreadSanitizer knows no fences (and warns): Asio goes without them, its locks order what they would.
  target_compile_definitions(ferry_flags INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
  target_compile_options(ferry_flags INTERFACE -fsanitize=thread -fno-omit-frame-pointer -g1)
  target_link_options(ferry_flags INTERFACE -fsanitize=thread)
endif()

# The instruction-set tiers that *_cpu.cc files are compiled for (see src/base/cpu_tier.h).
set(FERRY_TIERS plain)
set(FERRY_TIER_FLAGS_plain "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND FERRY_TIERS avx2 avx512)
  set(FERRY_TIER_FLAGS_avx2 -mavx2 -mfma -mf16c)
  set(FERRY_TIER_FLAGS_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mavx512vnni -mfma -mavx2 -mprefer-vector-width=512)
endif()
set(FERRY_KERNEL_OPTIONS -O3)
# Folders whose own code takes no time worth speaking of: they call ops and libraries. A quarter less to compile.
set(FERRY_COLD checkpoint train serve cli)
set(FERRY_COLD_OPTIONS -O1)
set(FERRY_TEST_OPTIONS -O1)
if(FERRY_SANITIZE OR FERRY_SANITIZE_THREADS)
  # They look for mistakes, not for speed: a file that computes takes half the time to build at -O1 that it takes
  # at -O3; any other, at -O0, half of what it takes at -O1 (a test of JSON: 5 s instead of 12). With GCC all are
  # at -O1, so that they can share its compiled headers.
  set(FERRY_KERNEL_OPTIONS -O1)
  set(FERRY_COLD_OPTIONS -O1)
  set(FERRY_TEST_OPTIONS -O1)
  set(CMAKE_CXX_FLAGS_RELEASE -O1)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    set(FERRY_COLD_OPTIONS -O0)
    set(FERRY_TEST_OPTIONS -O0)
    set(CMAKE_CXX_FLAGS_RELEASE -O0)
  endif()
endif()
# Folders that compute outside kernels as well (references, tables): with sanitizers too they are optimised.
set(FERRY_HOT ops tensor autograd optim models text grammar)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 warns about its own AVX-512 header (_mm512_undefined_ps).
  list(APPEND FERRY_KERNEL_OPTIONS -Wno-uninitialized -Wno-maybe-uninitialized)
  # ... about variants of strings, of which tests make lists, and at -O1 about lengths that a string never has.
  list(APPEND FERRY_TEST_OPTIONS -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds)
endif()
