// NVIDIA_SIM_FAST: a function that is compiled for several instruction sets, of which the loader
// takes the best. Every version does the same operations (nothing is contracted).
#pragma once

// Sanitizers start too late for the loader's choice; other compilers and processors have one
// version.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NVIDIA_SIM_FAST \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NVIDIA_SIM_FAST
#endif
