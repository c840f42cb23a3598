#include "device/ascend/errors.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>

namespace ferry::acl {
namespace {

constexpr Meaning kMeanings[] = {
    {100000, "INVALID_PARAM", Fault::kCaller, "the runtime refused an argument"},
    {100001, "UNINITIALIZE", Fault::kCaller, "the runtime was not initialised"},
    {100002, "REPEAT_INITIALIZE", Fault::kCaller, "the runtime was initialised twice"},
    {107000, "PARAM_INVALID", Fault::kCaller, "the runtime refused an argument"},
    {107001, "INVALID_DEVICEID", Fault::kCaller, "there is no device of this number"},
    {107002, "CONTEXT_NULL", Fault::kCaller, "this thread has no device set"},
    {107003, "STREAM_CONTEXT", Fault::kCaller, "the stream belongs to another context"},
    {107017, "INVALID_HANDLE", Fault::kCaller, "a handle is not valid, or no longer"},
    {107019, "WAIT_TIMEOUT", Fault::kDevice, "the device did not answer in time"},
    {107020, "TASK_TIMEOUT", Fault::kDevice, "a task did not end in time"},
    {107022, "DEVICE_TASK_ABORT", Fault::kDevice, "the device's tasks were aborted from outside"},
    {107023, "STREAM_ABORT", Fault::kDevice, "the stream was aborted"},
    {107035, "TASK_ABORT_STOP", Fault::kDevice, "tasks were stopped by an abort"},
    {161001, "PARAM_NULLPTR", Fault::kCaller, "the op was given no tensor where it needs one"},
    {161002, "PARAM_INVALID", Fault::kCaller, "the op refuses these shapes, types or attributes"},
    {200000, "BAD_ALLOC", Fault::kMemory, "the host had no memory for the runtime"},
    {200001, "API_NOT_SUPPORT", Fault::kCaller, "this CANN or chip does not support the call"},
    {200002, "INVALID_DEVICE", Fault::kCaller, "there is no such device"},
    {207000, "FEATURE_NOT_SUPPORT", Fault::kCaller, "this CANN or chip lacks the feature"},
    {207001, "MEMORY_ALLOCATION", Fault::kMemory, "the chip is out of memory"},
    {207003, "AICORE_OVER_FLOW", Fault::kDevice, "a computation overflowed"},
    {207007, "NO_EVENT_RESOURCE", Fault::kMemory, "the chip has no event left"},
    {207008, "NO_STREAM_RESOURCE", Fault::kMemory, "the chip has no stream left"},
    {207018, "DEVICE_OOM", Fault::kMemory, "the chip is out of memory"},
    {361001, "RUNTIME_ERROR", Fault::kDevice, "the op could not be launched: the runtime failed"},
    {500000, "INTERNAL_ERROR", Fault::kDevice, "the runtime failed inside"},
    {500003, "RT_FAILURE", Fault::kDevice, "the runtime failed inside"},
    {507000, "RT_INTERNAL_ERROR", Fault::kDevice, "the runtime or the driver failed inside"},
    {507010,
     "LOST_HEARTBEAT",
     Fault::kDevice,
     "the chip no longer answers its driver: see npu-smi; it may need a reset"},
    {507011, "MODEL_EXECUTE", Fault::kDevice, "a task failed on the chip"},
    {507014, "AICORE_TIMEOUT", Fault::kDevice, "a matrix core ran too long and was stopped"},
    {507015,
     "AICORE_EXCEPTION",
     Fault::kDevice,
     "a matrix core stopped: bad address, bad instruction or a hardware fault"},
    {507016, "AICORE_TRAP", Fault::kDevice, "a matrix core trapped"},
    {507017, "AICPU_TIMEOUT", Fault::kDevice, "the chip's control processor ran too long"},
    {507018, "AICPU_EXCEPTION", Fault::kDevice, "the chip's control processor failed in an op"},
    {507034, "VECTOR_CORE_TIMEOUT", Fault::kDevice, "a vector core ran too long and was stopped"},
    {507035,
     "VECTOR_CORE_EXCEPTION",
     Fault::kDevice,
     "a vector core stopped: bad address, bad instruction or a hardware fault"},
    {507046,
     "STREAM_SYNC_TIMEOUT",
     Fault::kDevice,
     "the stream did not come to its end in time: the chip hangs or is far too slow"},
    {507047, "EVENT_SYNC_TIMEOUT", Fault::kDevice, "an event did not come in time"},
    {507048, "FFTS_PLUS_TIMEOUT", Fault::kDevice, "a group of tasks ran too long"},
    {507049, "FFTS_PLUS_EXCEPTION", Fault::kDevice, "a group of tasks failed"},
    {507053,
     "DEVICE_MEM_ERROR",
     Fault::kDevice,
     "the chip's memory has an error that it could not mend: results since are not to be trusted"},
    {507054,
     "HBM_MULTI_BIT_ECC_ERROR",
     Fault::kDevice,
     "several bits of the chip's memory flipped at once, beyond what its checksum mends: data are "
     "lost, and a chip that does it again should be replaced"},
    {507055,
     "SUSPECT_DEVICE_MEM_ERROR",
     Fault::kDevice,
     "the chip's memory is suspected of an error"},
    {507056, "LINK_ERROR", Fault::kDevice, "a link between chips failed"},
    {507057, "SUSPECT_REMOTE_ERROR", Fault::kDevice, "another chip's memory is suspected"},
    {507899, "DRV_INTERNAL_ERROR", Fault::kDevice, "the driver failed inside"},
    {507904, "COMM_OP_RETRY_FAIL", Fault::kDevice, "a collective failed again when retried"},
    {507914, "L3_PORT_ERROR", Fault::kDevice, "a port of the chip's network failed"},
    {561000, "INNER_ERROR", Fault::kCaller, "the op failed inside while it was planned"},
    {561001, "INNER_INFERSHAPE_ERROR", Fault::kCaller, "the op could not derive its shapes"},
    {561002, "INNER_TILING_ERROR", Fault::kCaller, "the op found no way to tile these shapes"},
    {561003, "INNER_FIND_KERNEL_ERROR", Fault::kCaller, "CANN has no kernel for these types here"},
    {561101, "INNER_CREATE_EXECUTOR_ERROR", Fault::kCaller, "the op could not be planned"},
    {561103, "INNER_NULLPTR_ERROR", Fault::kCaller, "the op failed inside while it was planned"},
    {561107,
     "INNER_OPP_PATH_NOT_FOUND",
     Fault::kCaller,
     "CANN's operator packages were not found: source set_env.sh"},
    {561112,
     "INNER_OPP_KERNEL_PKG_NOT_FOUND",
     Fault::kCaller,
     "the kernel package of this chip is not installed"},
};

}  // namespace

const Meaning* meaning_of(int64_t code) {
  const auto at = std::find_if(
      std::begin(kMeanings), std::end(kMeanings), [&](const Meaning& m) { return m.code == code; });
  return at == std::end(kMeanings) ? nullptr : at;
}

std::string describe_code(int64_t code) {
  const Meaning* meaning = meaning_of(code);
  if (meaning == nullptr) return fmt::format("{}, a code that Ferry does not know", code);
  return fmt::format("{} {}: {}", code, meaning->name, meaning->text);
}

}  // namespace ferry::acl
