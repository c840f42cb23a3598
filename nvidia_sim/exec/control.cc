// Where lanes go: branches, ends, the block's barrier, trap.
#include "driver/result.h"
#include "exec/decoder.h"
#include "exec/warp.h"

namespace nvidia_sim {

bool decode_control(Decoder& d) {
  const std::string& base = d.base();
  Instruction& out = d.out();
  if (base == "bra") {
    d.take("uni");
    d.complete(1);
    d.label(0);
    out.flow = Flow::kBranch;
  } else if (base == "ret" || base == "exit") {
    d.take("uni");
    d.complete(0);
    out.flow = Flow::kExit;
  } else if (base == "bar" || base == "barrier") {
    d.take("cta");
    if (!d.take("sync")) d.refuse();
    if (!d.take("aligned") && base == "barrier")
      d.refuse("without .aligned it is not part of software NVIDIA");
    d.complete(1);
    const Operand& which = d.operand(0);
    if (which.kind != Operand::Kind::kInteger || which.value != 0)
      d.refuse("of barriers there is number 0 alone");
    out.flow = Flow::kBlockBarrier;
  } else if (base == "trap") {
    d.complete(0);
    out.run = [](Warp&, const Instruction&, uint32_t) {
      throw Violation(result::kLaunchFailed, "the kernel trapped");
    };
  } else {
    return false;
  }
  return true;
}

}  // namespace nvidia_sim
