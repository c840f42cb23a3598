// The part of the CUDA driver API that Ferry calls, in declarations of our own: names, order of
// arguments, C types and numbers, which are facts of the interface. No header of NVIDIA's is
// needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"

namespace ferry::cuda {

using Error = int;  // 0 is success
using DeviceId = int;
using Address = uint64_t;  // of device memory
using Context = void*;
using StreamHandle = void*;
using Event = void*;
using Module = void*;
using Function = void*;
using MemoryPool = void*;

inline constexpr Error kOutOfMemory = 2;
inline constexpr Error kNoDevice = 100;
inline constexpr Error kNotReady = 600;
inline constexpr Error kLaunchTimeout = 702;

inline constexpr unsigned kStreamNonBlocking = 1;  // of cuStreamCreate
inline constexpr unsigned kEventNoTiming = 2;      // of cuEventCreate
inline constexpr int kPoolKeepsBytes = 4;          // of cuMemPoolSetAttribute: release threshold
inline constexpr int kPoolReservedBytes = 5;       // of cuMemPoolGetAttribute

enum Attribute : int {
  kClockKhz = 13,
  kMultiprocessors = 16,
  kCapabilityMajor = 75,
  kCapabilityMinor = 76,
  kMemoryPools = 115,
};

enum JitOption : int { kErrorLog = 5, kErrorLogBytes = 6 };

// How arguments are handed to cuLaunchKernel: as one block of bytes, whose size the driver checks.
enum LaunchExtra : uintptr_t { kParamsEnd = 0, kParamsBuffer = 1, kParamsBytes = 2 };

// F(name, result, arguments...) for each function. Some names have a version: that of the header
// since CUDA 4, which every later library has.
#define FERRY_CUDA_DRIVER(F)                                                       \
  F(cuInit, Error, unsigned)                                                       \
  F(cuDriverGetVersion, Error, int*)                                               \
  F(cuGetErrorName, Error, Error, const char**)                                    \
  F(cuDeviceGetCount, Error, int*)                                                 \
  F(cuDeviceGet, Error, DeviceId*, int)                                            \
  F(cuDeviceGetName, Error, char*, int, DeviceId)                                  \
  F(cuDeviceGetAttribute, Error, int*, int, DeviceId)                              \
  F(cuDeviceTotalMem_v2, Error, size_t*, DeviceId)                                 \
  F(cuDeviceGetDefaultMemPool, Error, MemoryPool*, DeviceId)                       \
  F(cuDevicePrimaryCtxRetain, Error, Context*, DeviceId)                           \
  F(cuCtxSetCurrent, Error, Context)                                               \
  F(cuMemGetInfo_v2, Error, size_t*, size_t*)                                      \
  F(cuMemPoolSetAttribute, Error, MemoryPool, int, void*)                          \
  F(cuMemPoolGetAttribute, Error, MemoryPool, int, void*)                          \
  F(cuMemPoolTrimTo, Error, MemoryPool, size_t)                                    \
  F(cuMemAllocAsync, Error, Address*, size_t, StreamHandle)                        \
  F(cuMemFreeAsync, Error, Address, StreamHandle)                                  \
  F(cuMemHostAlloc, Error, void**, size_t, unsigned)                               \
  F(cuMemcpyHtoDAsync_v2, Error, Address, const void*, size_t, StreamHandle)       \
  F(cuMemcpyDtoHAsync_v2, Error, void*, Address, size_t, StreamHandle)             \
  F(cuMemcpyDtoDAsync_v2, Error, Address, Address, size_t, StreamHandle)           \
  F(cuMemsetD8Async, Error, Address, unsigned char, size_t, StreamHandle)          \
  F(cuStreamCreate, Error, StreamHandle*, unsigned)                                \
  F(cuStreamQuery, Error, StreamHandle)                                            \
  F(cuEventCreate, Error, Event*, unsigned)                                        \
  F(cuEventDestroy_v2, Error, Event)                                               \
  F(cuEventRecord, Error, Event, StreamHandle)                                     \
  F(cuEventQuery, Error, Event)                                                    \
  F(cuModuleLoadDataEx, Error, Module*, const void*, unsigned, JitOption*, void**) \
  F(cuModuleGetFunction, Error, Function*, Module, const char*)                    \
  F(cuLaunchKernel,                                                                \
    Error,                                                                         \
    Function,                                                                      \
    unsigned,                                                                      \
    unsigned,                                                                      \
    unsigned,                                                                      \
    unsigned,                                                                      \
    unsigned,                                                                      \
    unsigned,                                                                      \
    unsigned,                                                                      \
    StreamHandle,                                                                  \
    void**,                                                                        \
    void**)

/// The functions above, found by name once.
struct Library {
#define FERRY_CUDA_MEMBER(name, result, ...) result (*name)(__VA_ARGS__) = nullptr;
  FERRY_CUDA_DRIVER(FERRY_CUDA_MEMBER)
#undef FERRY_CUDA_MEMBER

  std::string software;               // not empty: software NVIDIA, and its version
  const char* (*report)() = nullptr;  // what software NVIDIA found

  /// What software NVIDIA found last, " (...)"; "" of a card's driver, which has numbers alone.
  std::string recent_report() const;
};

/// Opens libcuda.so.1 from $FERRY_CUDA_LIBRARIES, or where the loader looks; once for the process.
/// Errors: kUnavailable, saying what is not there.
Result<const Library*> open_library();

/// The same from one folder ("": the loader's), without remembering it. For tests.
Result<Library> open_library_in(const std::string& folder);

}  // namespace ferry::cuda
