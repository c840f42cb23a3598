#include "exec/decode.h"

#include "exec/decoder.h"
#include "exec/faulty.h"

namespace nvidia_sim {
namespace {

Kernel kernel_of(const Module& module, const Entry& entry, const Planted& planted) {
  Kernel kernel;
  kernel.name = entry.name;
  kernel.threads_max = entry.threads_max;
  kernel.threads_required = entry.threads_required;
  for (const Variable& p : entry.params) {
    kernel.params_bytes = (kernel.params_bytes + p.align - 1) / p.align * p.align;
    kernel.params.push_back(kernel.params_bytes);
    kernel.param_bytes.push_back(p.bytes);
    kernel.params_bytes += p.bytes;
  }
  constexpr uint64_t kParamsBytesMax = 4096;
  if (kernel.params_bytes > kParamsBytesMax)
    throw PtxError(entry.line, "a kernel has 4096 bytes of parameters at most");
  Registers registers(module, entry);
  for (const Statement& s : entry.body) {
    Decoder d(s, registers, entry, kernel);
    if (!decode_arithmetic(d) && !decode_float(d) && !decode_comparison(d) &&
        !decode_conversion(d) && !decode_memory(d) && !decode_warp(d) && !decode_matrix(d) &&
        !decode_async_copy(d) && !decode_control(d))
      d.refuse();
    plant(d.out(), planted);
    kernel.code.push_back(d.out());
  }
  // A label may stand behind the last statement; and nothing runs on beyond the end.
  kernel.code.push_back({.flow = Flow::kExit, .line = entry.line, .name = "end of kernel"});
  registers.finish(kernel);
  return kernel;
}

}  // namespace

Program decode(const Module& module, const Planted& planted) {
  Program program;
  for (const Entry& entry : module.entries)
    program.kernels.emplace(entry.name, kernel_of(module, entry, planted));
  return program;
}

}  // namespace nvidia_sim
