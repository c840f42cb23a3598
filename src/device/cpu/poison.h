// Whether AddressSanitizer watches: then what the CPU's pool has not given out cannot be touched,
// neither free blocks nor the fences around those in use.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define FERRY_CPU_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FERRY_CPU_POISON 1
#endif
#endif
#if defined(FERRY_CPU_POISON)
#include <sanitizer/asan_interface.h>
#endif
