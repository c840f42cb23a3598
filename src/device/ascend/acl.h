// The part of AscendCL and of the aclnn base that Ferry calls, in declarations of our own: names,
// argument order, C types and numbers, which are facts of the interface. No vendor header is
// needed, and none was copied: theirs are licensed for Ascend machines only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"

namespace ferry::acl {

using Error = int;       // what the runtime answers; 0 is success
using Status = int32_t;  // what aclnn answers; 0 is success
using Context = void*;
using Stream = void*;
using Event = void*;

struct Tensor;  // opaque, owned by the vendor's library
struct TensorList;
struct Scalar;
struct IntArray;
struct Executor;

enum DataType : int {
  kFloat = 0,
  kFloat16 = 1,
  kInt8 = 2,
  kInt32 = 3,
  kUint8 = 4,
  kInt16 = 6,
  kInt64 = 9,
  kDouble = 11,
  kBool = 12,
  kBf16 = 27,
  kFloat8E4M3 = 36,
};

enum Format : int { kNd = 2 };
enum CopyKind : int { kHostToHost = 0, kHostToDevice = 1, kDeviceToHost = 2, kDeviceToDevice = 3 };
enum MallocPolicy : int { kHugeFirst = 0 };
enum MemoryAttribute : int { kHbm = 1 };
enum SystemOption : int { kDeterministic = 0 };
enum EventStatus : int { kNotReady = 0, kComplete = 1 };

inline constexpr uint32_t kEventSync = 1;        // flags of aclrtCreateEventWithFlag
inline constexpr uint32_t kEventTimeLine = 8;    // ... needed to ask for elapsed time
inline constexpr int64_t kBatchConsistency = 3;  // of kDeterministic: a row's bits are its own
inline constexpr uint64_t kStopOnFailure = 1;    // of aclrtSetStreamFailureMode
inline constexpr Error kAlreadyInitialised = 100002;
inline constexpr Error kOutOfMemory = 207001;
inline constexpr Error kDeviceOutOfMemory = 207018;
inline constexpr Error kStreamSyncTimeout = 507046;
inline constexpr Error kEventSyncTimeout = 507047;
inline constexpr Error kWaitTimeout = 107019;

// F(name, result, arguments...) for each function of each library.
#define FERRY_ACL_RUNTIME(F)                                                       \
  F(aclInit, Error, const char*)                                                   \
  F(aclFinalize, Error)                                                            \
  F(aclGetRecentErrMsg, const char*)                                               \
  F(aclrtGetSocName, const char*)                                                  \
  F(aclrtGetDeviceCount, Error, uint32_t*)                                         \
  F(aclrtSetDevice, Error, int32_t)                                                \
  F(aclrtResetDevice, Error, int32_t)                                              \
  F(aclrtGetCurrentContext, Error, Context*)                                       \
  F(aclrtSetCurrentContext, Error, Context)                                        \
  F(aclrtCtxSetSysParamOpt, Error, SystemOption, int64_t)                          \
  F(aclrtGetMemInfo, Error, MemoryAttribute, size_t*, size_t*)                     \
  F(aclrtCreateStream, Error, Stream*)                                             \
  F(aclrtDestroyStreamForce, Error, Stream)                                        \
  F(aclrtSetStreamFailureMode, Error, Stream, uint64_t)                            \
  F(aclrtSynchronizeStreamWithTimeout, Error, Stream, int32_t)                     \
  F(aclrtCreateEvent, Error, Event*)                                               \
  F(aclrtCreateEventWithFlag, Error, Event*, uint32_t)                             \
  F(aclrtDestroyEvent, Error, Event)                                               \
  F(aclrtRecordEvent, Error, Event, Stream)                                        \
  F(aclrtQueryEventStatus, Error, Event, EventStatus*)                             \
  F(aclrtSynchronizeEventWithTimeout, Error, Event, int32_t)                       \
  F(aclrtEventElapsedTime, Error, float*, Event, Event)                            \
  F(aclrtMalloc, Error, void**, size_t, MallocPolicy)                              \
  F(aclrtFree, Error, void*)                                                       \
  F(aclrtMallocHost, Error, void**, size_t)                                        \
  F(aclrtFreeHost, Error, void*)                                                   \
  F(aclrtMemcpy, Error, void*, size_t, const void*, size_t, CopyKind)              \
  F(aclrtMemcpyAsync, Error, void*, size_t, const void*, size_t, CopyKind, Stream) \
  F(aclrtMemsetAsync, Error, void*, size_t, int32_t, size_t, Stream)               \
  F(aclrtDeviceCanAccessPeer, Error, int32_t*, int32_t, int32_t)                   \
  F(aclrtDeviceEnablePeerAccess, Error, int32_t, uint32_t)

#define FERRY_ACL_BASE(F)                                             \
  F(aclCreateTensor,                                                  \
    Tensor*,                                                          \
    const int64_t*,                                                   \
    uint64_t,                                                         \
    DataType,                                                         \
    const int64_t*,                                                   \
    int64_t,                                                          \
    Format,                                                           \
    const int64_t*,                                                   \
    uint64_t,                                                         \
    void*)                                                            \
  F(aclDestroyTensor, Status, const Tensor*)                          \
  F(aclCreateTensorList, TensorList*, const Tensor* const*, uint64_t) \
  F(aclDestroyTensorList, Status, const TensorList*)                  \
  F(aclCreateScalar, Scalar*, void*, DataType)                        \
  F(aclDestroyScalar, Status, const Scalar*)                          \
  F(aclCreateIntArray, IntArray*, const int64_t*, uint64_t)           \
  F(aclDestroyIntArray, Status, const IntArray*)

/// The functions above, found by name once.
struct Library {
#define FERRY_ACL_MEMBER(name, result, ...) result (*name)(__VA_ARGS__) = nullptr;
  FERRY_ACL_RUNTIME(FERRY_ACL_MEMBER)
  FERRY_ACL_BASE(FERRY_ACL_MEMBER)
#undef FERRY_ACL_MEMBER

  std::string folder;         // where the libraries were found; "" if the loader knew
  std::string software;       // not empty: software Ascend, and its version
  void* operators = nullptr;  // libopapi.so's handle
  void* runtime = nullptr;    // libascendcl.so's

  /// A function of libopapi.so; nullptr if this CANN has none of that name.
  void* find_operator(const char* name) const;
  /// What the runtime last complained of on this thread, " (...)", or "". Asking clears it.
  std::string recent_message() const;
};

/// Opens libascendcl.so, libnnopbase.so and libopapi.so from $FERRY_ASCEND_LIBRARIES, or
/// $ASCEND_HOME_PATH/lib64, or $ASCEND_TOOLKIT_HOME/lib64, or where the loader looks; once for the
/// process. Errors: kUnavailable, saying which file or which function is not there.
Result<const Library*> open_library();

/// The same from one folder ("": the loader's), without remembering it. For tests.
Result<Library> open_library_in(const std::string& folder);

}  // namespace ferry::acl
