#include "device/cuda/errors.h"

namespace ferry::cuda {
namespace {

constexpr ErrorMeaning kMeanings[] = {
    {1, "INVALID_VALUE", Fault::kCaller, "the driver refused an argument"},
    {2, "OUT_OF_MEMORY", Fault::kMemory, "the GPU is out of memory"},
    {3, "NOT_INITIALIZED", Fault::kCaller, "the driver was not initialised"},
    {46, "DEVICE_UNAVAILABLE", Fault::kDevice, "the GPU is busy or set to take one process alone"},
    {100, "NO_DEVICE", Fault::kCaller, "the driver sees no GPU (see nvidia-smi)"},
    {101, "INVALID_DEVICE", Fault::kCaller, "there is no GPU of this number"},
    {201, "INVALID_CONTEXT", Fault::kCaller, "this thread has no device set"},
    {209, "NO_BINARY_FOR_GPU", Fault::kCaller, "the kernels do not run on this GPU"},
    {214,
     "ECC_UNCORRECTABLE",
     Fault::kDevice,
     "several bits of the GPU's memory flipped at once, beyond what its checksum mends: data are "
     "lost, and a GPU that does it again should be replaced (nvidia-smi -q -d ECC)"},
    {218, "INVALID_PTX", Fault::kCaller, "the driver cannot compile the kernels"},
    {220, "NVLINK_UNCORRECTABLE", Fault::kDevice, "a link between GPUs failed"},
    {221,
     "JIT_COMPILER_NOT_FOUND",
     Fault::kCaller,
     "the driver's compiler of kernels is missing (libnvidia-ptxjitcompiler.so.1): install all of the driver"},
    {222,
     "UNSUPPORTED_PTX_VERSION",
     Fault::kCaller,
     "the driver is older than the kernels: 580 or newer is needed"},
    {223,
     "JIT_COMPILATION_DISABLED",
     Fault::kCaller,
     "the driver may not compile kernels: unset CUDA_DISABLE_PTX_JIT"},
    {226, "CONTAINED", Fault::kDevice, "an error of the GPU's memory ended this process alone"},
    {400, "INVALID_HANDLE", Fault::kCaller, "a handle is not valid, or no longer"},
    {500, "NOT_FOUND", Fault::kCaller, "the kernels lack one of this name"},
    {700,
     "ILLEGAL_ADDRESS",
     Fault::kDevice,
     "a kernel used memory that is not its own: a fault of Ferry's, or of the hardware"},
    {701, "LAUNCH_OUT_OF_RESOURCES", Fault::kCaller, "a kernel wants more than the GPU has"},
    {702, "LAUNCH_TIMEOUT", Fault::kDevice, "a kernel ran too long and was stopped, or hangs"},
    {710, "ASSERT", Fault::kDevice, "a kernel stopped itself"},
    {714, "HARDWARE_STACK_ERROR", Fault::kDevice, "a kernel's stack is damaged"},
    {715, "ILLEGAL_INSTRUCTION", Fault::kDevice, "a kernel met an instruction that is none"},
    {716, "MISALIGNED_ADDRESS", Fault::kDevice, "a kernel used a misaligned address"},
    {718, "INVALID_PC", Fault::kDevice, "a kernel lost its way"},
    {719, "LAUNCH_FAILED", Fault::kDevice, "a kernel failed"},
    {802, "SYSTEM_NOT_READY", Fault::kDevice, "the system is not ready: is the fabric manager on?"},
    {803, "SYSTEM_DRIVER_MISMATCH", Fault::kCaller, "the driver's parts are of two versions"},
    {999,
     "UNKNOWN",
     Fault::kDevice,
     "the driver failed inside: the GPU may have fallen off the bus (see dmesg for Xid)"},
};

}  // namespace

const ErrorMeaning* meaning_of(int64_t code) { return find_meaning(kMeanings, code); }

std::string describe_code(int64_t code) { return ferry::describe_code(kMeanings, code); }

}  // namespace ferry::cuda
