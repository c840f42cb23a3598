// A kernel as it is executed: instructions that know where their operands lie and what carries them
// out. Made once for a module (decode.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace nvidia_sim {

struct Warp;

inline constexpr int kWarpSize = 32;
inline constexpr uint32_t kAllLanes = 0xFFFFFFFF;

/// What an instruction does to the order in which lanes go on.
enum class Flow : uint8_t { kNext, kBranch, kExit, kBlockBarrier };

struct Instruction {
  using Run = void (*)(Warp&, const Instruction&, uint32_t lanes);

  Run run = nullptr;    // of Flow::kNext
  Run sound = nullptr;  // what `run` was before a defect was planted there
  Flow flow = Flow::kNext;
  bool guard_negated = false;
  int guard = -1;                   // the predicate, or none
  std::array<uint32_t, 4> d = {};   // registers: the byte where their 32 lanes begin
  std::array<uint32_t, 10> a = {};  // ... or the number of a predicate; ten: of mma
  int64_t offset = 0;               // of an address
  int count = 1;                    // of a vector
  int mode = 0;                     // the instruction's own
  size_t target = 0;                // of a branch
  int line = 0;
  std::string name;  // "ld.global.f32"
};

/// Registers that hold the same number in all lanes, and never change.
struct Constant {
  uint32_t at = 0;
  int bytes = 0;
  uint64_t value = 0;
};

/// What a thread knows of its place, in the order of Kernel::special.
enum Special {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kSpecials
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<uint64_t> params;  // offset of each, in the order of the arguments
  std::vector<uint64_t> param_bytes;
  uint64_t params_bytes = 0;
  uint64_t shared_bytes = 0;  // static; what the launch adds lies behind
  uint32_t registers_bytes = 0;
  uint32_t predicates = 0;
  std::vector<Constant> constants;
  std::array<uint32_t, kSpecials> special = {};
  uint32_t threads_max = 1024;
  uint32_t threads_required = 0;
};

struct Program {
  std::map<std::string, Kernel> kernels;
};

}  // namespace nvidia_sim
