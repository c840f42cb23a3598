// The names, numbers and C types of AscendCL that software Ascend answers to. Declared here from
// documented interface facts; nothing is taken from CANN's headers.
#pragma once

#include <cstddef>
#include <cstdint>

#define ASCEND_SIM_EXPORT __attribute__((visibility("default")))

using aclError = int;
using aclnnStatus = int32_t;
using aclrtContext = void*;
using aclrtStream = void*;
using aclrtEvent = void*;

struct aclTensor;
struct aclScalar;
struct aclIntArray;
struct aclFloatArray;
struct aclBoolArray;
struct aclTensorList;
struct aclScalarList;
struct aclOpExecutor;

// Element types, as far as software Ascend knows them.
enum aclDataType : int {
  ACL_DT_UNDEFINED = -1,
  ACL_FLOAT = 0,
  ACL_FLOAT16 = 1,
  ACL_INT8 = 2,
  ACL_INT32 = 3,
  ACL_UINT8 = 4,
  ACL_INT16 = 6,
  ACL_UINT16 = 7,
  ACL_UINT32 = 8,
  ACL_INT64 = 9,
  ACL_UINT64 = 10,
  ACL_DOUBLE = 11,
  ACL_BOOL = 12,
  ACL_BF16 = 27,
};

enum aclFormat : int {
  ACL_FORMAT_UNDEFINED = -1,
  ACL_FORMAT_NCHW = 0,
  ACL_FORMAT_NHWC = 1,
  ACL_FORMAT_ND = 2,
  ACL_FORMAT_FRACTAL_NZ = 29,
};

enum aclrtMemcpyKind : int {
  ACL_MEMCPY_HOST_TO_HOST = 0,
  ACL_MEMCPY_HOST_TO_DEVICE = 1,
  ACL_MEMCPY_DEVICE_TO_HOST = 2,
  ACL_MEMCPY_DEVICE_TO_DEVICE = 3,
  ACL_MEMCPY_DEFAULT = 4,
};

// What calls answer. The first group by acl and aclrt, the second by aclnn.
namespace ascend_sim::code {
inline constexpr int kOk = 0;
inline constexpr int kInvalidParam = 100000;
inline constexpr int kUninitialized = 100001;
inline constexpr int kRepeatInitialize = 100002;
inline constexpr int kApiNotSupported = 200001;
inline constexpr int kParam = 107000;
inline constexpr int kDeviceId = 107001;
inline constexpr int kNoContext = 107002;
inline constexpr int kStreamContext = 107003;
inline constexpr int kInvalidHandle = 107017;
inline constexpr int kWaitTimeout = 107019;
inline constexpr int kDeviceTaskAbort = 107022;
inline constexpr int kStreamAbort = 107023;
inline constexpr int kFeatureNotSupported = 207000;
inline constexpr int kOutOfMemory = 207001;
inline constexpr int kNoEvent = 207007;
inline constexpr int kNoStream = 207008;
inline constexpr int kAicoreTimeout = 507014;
inline constexpr int kAicoreException = 507015;
inline constexpr int kVectorCoreTimeout = 507034;
inline constexpr int kVectorCoreException = 507035;
inline constexpr int kStreamSyncTimeout = 507046;
inline constexpr int kEventSyncTimeout = 507047;
inline constexpr int kDeviceMemError = 507053;
inline constexpr int kHbmMultiBitEcc = 507054;
inline constexpr int kLinkError = 507056;

inline constexpr int kNullptr = 161001;
inline constexpr int kInvalid = 161002;
inline constexpr int kRuntimeError = 361001;
inline constexpr int kInner = 561000;
inline constexpr int kExecutorNull = 561103;
}  // namespace ascend_sim::code
