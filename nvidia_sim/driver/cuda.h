// The part of the driver API that software NVIDIA offers, in declarations of its own: names, order
// of arguments and numbers, which are facts of the interface.
#pragma once

#include <cstddef>
#include <cstdint>

#define NVIDIA_SIM_API extern "C" __attribute__((visibility("default")))

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = uint64_t;
struct CUcontext_;
struct CUstream_;
struct CUevent_;
struct CUmodule_;
struct CUfunction_;
struct CUpool_;
using CUcontext = CUcontext_*;
using CUstream = CUstream_*;
using CUevent = CUevent_*;
using CUmodule = CUmodule_*;
using CUfunction = CUfunction_*;
using CUmemoryPool = CUpool_*;

// What marks software NVIDIA, and its version; and what the last mistake was that it found, "" if
// none: the driver has numbers alone.
NVIDIA_SIM_API const char* ferrySoftwareNvidia();
NVIDIA_SIM_API const char* ferrySoftwareNvidiaReport();
/// Of "defects" a line for each that can be planted: name<TAB>op<TAB>what it does; null for another
/// word.
NVIDIA_SIM_API const char* ferrySoftwareNvidiaList(const char* what);
/// For tests: forgets devices, contexts and errors, and reads the settings again.
NVIDIA_SIM_API void ferrySoftwareNvidiaReset();

NVIDIA_SIM_API CUresult cuInit(unsigned flags);
NVIDIA_SIM_API CUresult cuDriverGetVersion(int* version);
NVIDIA_SIM_API CUresult cuGetErrorName(CUresult code, const char** name);
NVIDIA_SIM_API CUresult cuDeviceGetCount(int* count);
NVIDIA_SIM_API CUresult cuDeviceGet(CUdevice* device, int ordinal);
NVIDIA_SIM_API CUresult cuDeviceGetName(char* name, int length, CUdevice device);
NVIDIA_SIM_API CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device);
NVIDIA_SIM_API CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device);
NVIDIA_SIM_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device);
NVIDIA_SIM_API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device);
NVIDIA_SIM_API CUresult cuCtxSetCurrent(CUcontext context);
NVIDIA_SIM_API CUresult cuMemGetInfo_v2(size_t* free, size_t* total);
NVIDIA_SIM_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, int attribute, void* value);
NVIDIA_SIM_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void* value);
NVIDIA_SIM_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep);
NVIDIA_SIM_API CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream);
NVIDIA_SIM_API CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream);
NVIDIA_SIM_API CUresult cuMemHostAlloc(void** memory, size_t bytes, unsigned flags);
NVIDIA_SIM_API CUresult cuMemFreeHost(void* memory);
NVIDIA_SIM_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to,
                                             const void* from,
                                             size_t bytes,
                                             CUstream stream);
NVIDIA_SIM_API CUresult cuMemcpyDtoHAsync_v2(void* to,
                                             CUdeviceptr from,
                                             size_t bytes,
                                             CUstream stream);
NVIDIA_SIM_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to,
                                             CUdeviceptr from,
                                             size_t bytes,
                                             CUstream stream);
NVIDIA_SIM_API CUresult cuMemsetD8Async(CUdeviceptr to,
                                        unsigned char value,
                                        size_t bytes,
                                        CUstream stream);
NVIDIA_SIM_API CUresult cuStreamCreate(CUstream* stream, unsigned flags);
NVIDIA_SIM_API CUresult cuStreamDestroy_v2(CUstream stream);
NVIDIA_SIM_API CUresult cuStreamQuery(CUstream stream);
NVIDIA_SIM_API CUresult cuStreamSynchronize(CUstream stream);
NVIDIA_SIM_API CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags);
NVIDIA_SIM_API CUresult cuEventCreate(CUevent* event, unsigned flags);
NVIDIA_SIM_API CUresult cuEventDestroy_v2(CUevent event);
NVIDIA_SIM_API CUresult cuEventRecord(CUevent event, CUstream stream);
NVIDIA_SIM_API CUresult cuEventQuery(CUevent event);
NVIDIA_SIM_API CUresult cuEventSynchronize(CUevent event);
NVIDIA_SIM_API CUresult cuModuleLoadDataEx(
    CUmodule* module, const void* image, unsigned options, const int* names, void** values);
NVIDIA_SIM_API CUresult cuModuleUnload(CUmodule module);
NVIDIA_SIM_API CUresult cuModuleGetFunction(CUfunction* function,
                                            CUmodule module,
                                            const char* name);
NVIDIA_SIM_API CUresult cuLaunchKernel(CUfunction function,
                                       unsigned grid_x,
                                       unsigned grid_y,
                                       unsigned grid_z,
                                       unsigned block_x,
                                       unsigned block_y,
                                       unsigned block_z,
                                       unsigned shared_bytes,
                                       CUstream stream,
                                       void** params,
                                       void** extra);
