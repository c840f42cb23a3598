// AscendCL as a program sees it: the calls that these tests make, declared from their documented
// forms, and a few lines that make tests short. Nothing here reaches behind the C interface.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "acl.h"

extern "C" {
int aclInit(const char*);
int aclFinalize();
const char* aclGetRecentErrMsg();
const char* aclrtGetSocName();
const char* ferrySoftwareAscend();
const char* ferrySoftwareAscendList(const char*);
int aclrtGetDeviceCount(uint32_t*);
int aclrtSetDevice(int32_t);
int aclrtResetDevice(int32_t);
int aclrtCreateContext(void**, int32_t);
int aclrtDestroyContext(void*);
int aclrtSetCurrentContext(void*);
int aclrtGetCurrentContext(void**);
int aclrtCtxSetSysParamOpt(int, int64_t);
int aclrtCtxGetSysParamOpt(int, int64_t*);
int aclrtDeviceEnablePeerAccess(int32_t, uint32_t);
int aclrtSynchronizeDevice();
int aclrtDeviceTaskAbort(int32_t, uint32_t);
int aclrtPeekAtLastError(int);
int aclrtGetLastError(int);
int aclrtGetMemUceInfo(int32_t, void*, size_t, size_t*);
int aclrtMemUceRepair(int32_t, void*, size_t);
int aclrtCreateStream(void**);
int aclrtDestroyStream(void*);
int aclrtDestroyStreamForce(void*);
int aclrtSynchronizeStream(void*);
int aclrtSynchronizeStreamWithTimeout(void*, int32_t);
int aclrtStreamQuery(void*, int*);
int aclrtStreamAbort(void*);
int aclrtSetStreamFailureMode(void*, uint64_t);
int aclrtStreamWaitEvent(void*, void*);
int aclrtCreateEvent(void**);
int aclrtCreateEventWithFlag(void**, uint32_t);
int aclrtCreateEventExWithFlag(void**, uint32_t);
int aclrtDestroyEvent(void*);
int aclrtRecordEvent(void*, void*);
int aclrtResetEvent(void*, void*);
int aclrtQueryEventStatus(void*, int*);
int aclrtSynchronizeEvent(void*);
int aclrtSynchronizeEventWithTimeout(void*, int32_t);
int aclrtEventElapsedTime(float*, void*, void*);
int aclrtLaunchHostFunc(void*, void (*)(void*), void*);
int aclrtMalloc(void**, size_t, int);
int aclrtFree(void*);
int aclrtMallocHost(void**, size_t);
int aclrtFreeHost(void*);
int aclrtMemcpy(void*, size_t, const void*, size_t, int);
int aclrtMemcpyAsync(void*, size_t, const void*, size_t, int, void*);
int aclrtMemcpy2d(void*, size_t, const void*, size_t, size_t, size_t, int);
int aclrtMemset(void*, size_t, int32_t, size_t);
int aclrtMemsetAsync(void*, size_t, int32_t, size_t, void*);
int aclrtGetMemInfo(int, size_t*, size_t*);
int aclrtReserveMemAddress(void**, size_t, size_t, void*, uint64_t);
int aclrtReleaseMemAddress(void*);
int aclrtMallocPhysical(void**, size_t, const void*, uint64_t);
int aclrtFreePhysical(void*);
int aclrtMapMem(void*, size_t, size_t, void*, uint64_t);
int aclrtUnmapMem(void*);
aclTensor* aclCreateTensor(const int64_t*,
                           uint64_t,
                           aclDataType,
                           const int64_t*,
                           int64_t,
                           aclFormat,
                           const int64_t*,
                           uint64_t,
                           void*);
int aclDestroyTensor(const aclTensor*);
aclTensorList* aclCreateTensorList(const aclTensor* const*, uint64_t);
int aclDestroyTensorList(const aclTensorList*);
aclScalar* aclCreateScalar(void*, aclDataType);
int aclDestroyScalar(const aclScalar*);
int aclGetViewStrides(const aclTensor*, int64_t**, uint64_t*);
int aclDestroyAclOpExecutor(aclOpExecutor*);
}

namespace ascend_sim_test {

inline constexpr int kHostToHost = 0, kToDevice = 1, kToHost = 2, kWithin = 3, kDefault = 4;

/// The process on software Ascend with these FERRY_ASCEND_SIM_... settings, device 0 set in this
/// thread; over when it goes out of scope. No random delays unless asked for.
class Simulation {
 public:
  using Setting = std::pair<const char*, const char*>;
  Simulation() : Simulation(std::initializer_list<Setting>{}) {}
  Simulation(std::initializer_list<Setting> settings) {
    set("DELAY_US", "0");
    for (const auto& [name, value] : settings) set(name, value);
    started_ = aclInit(nullptr) == 0 && aclrtSetDevice(0) == 0;
  }
  Simulation(const Simulation&) = delete;
  Simulation& operator=(const Simulation&) = delete;
  ~Simulation() {
    aclFinalize();
    for (const std::string& name : names_) unsetenv(name.c_str());
  }
  bool started() const { return started_; }

 private:
  void set(const char* name, const char* value) {
    names_.push_back(std::string("FERRY_ASCEND_SIM_") + name);
    setenv(names_.back().c_str(), value, 1);
  }

  std::vector<std::string> names_;
  bool started_ = false;
};

inline void* device_memory(size_t bytes) {
  void* p = nullptr;
  return aclrtMalloc(&p, bytes, 0) == 0 ? p : nullptr;
}

inline void* make_stream() {
  void* stream = nullptr;
  return aclrtCreateStream(&stream) == 0 ? stream : nullptr;
}

inline std::vector<float> read_floats(const void* p, size_t n) {
  std::vector<float> out(n);
  if (aclrtMemcpy(out.data(), n * 4, p, n * 4, kToHost) != 0) out.clear();
  return out;
}

/// Device memory that holds these floats.
inline void* device_floats(const std::vector<float>& values) {
  void* p = device_memory(values.size() * 4);
  aclrtMemcpy(p, values.size() * 4, values.data(), values.size() * 4, kToDevice);
  return p;
}

inline std::string last_message() {
  const char* text = aclGetRecentErrMsg();
  return text ? text : "";
}

}  // namespace ascend_sim_test
