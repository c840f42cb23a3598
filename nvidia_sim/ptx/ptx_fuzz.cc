// Fuzzer of the reader of PTX: any text is refused with words, or gives a program that can be
// executed: every instruction has what carries it out, every branch leads to an instruction.
#include <cstdlib>
#include <string_view>

#include "exec/decode.h"
#include "ptx/parser.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nvidia_sim;
  try {
    const Program program =
        decode(parse_ptx(std::string_view(reinterpret_cast<const char*>(data), size)));
    for (const auto& [name, kernel] : program.kernels)
      for (const Instruction& i : kernel.code) {
        if (i.flow == Flow::kNext && i.run == nullptr) std::abort();
        if (i.flow == Flow::kBranch && i.target >= kernel.code.size()) std::abort();
      }
  } catch (const PtxError& e) {
    if (std::string_view(e.what()).empty()) std::abort();
  }
  return 0;
}
