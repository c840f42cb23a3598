# Compiler flags and packages for everything. Bits before speed: no contraction, no fast-math.
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

add_library(ferry_flags INTERFACE)
target_include_directories(ferry_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(ferry_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  -Wno-missing-field-initializers  # designated initialisers leave out what has a default
  -Werror
  -ffp-contract=off -fno-math-errno -fvisibility=hidden)
target_compile_definitions(ferry_flags INTERFACE FMT_HEADER_ONLY=0 SPDLOG_FMT_EXTERNAL SPDLOG_COMPILED_LIB)
if(FERRY_SANITIZE)
  target_compile_options(ferry_flags INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -O1)
  target_link_options(ferry_flags INTERFACE -fsanitize=address,undefined)
endif()
if(FERRY_FUZZ)
  target_compile_options(ferry_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined -g1 -O1)
  target_link_options(ferry_flags INTERFACE -fsanitize=address,undefined)
endif()

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
target_link_libraries(ferry_flags INTERFACE fmt::fmt Threads::Threads)

# The instruction-set tiers that *_cpu.cc files are compiled for (see src/base/cpu_tier.h).
set(FERRY_TIERS plain)
set(FERRY_TIER_FLAGS_plain "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND FERRY_TIERS avx2 avx512)
  set(FERRY_TIER_FLAGS_avx2 -mavx2 -mfma -mf16c)
  set(FERRY_TIER_FLAGS_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mavx2 -mprefer-vector-width=512)
endif()
