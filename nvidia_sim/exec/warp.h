// 32 threads that are executed together. Each lane has a place in the program of its own; those at
// the lowest one go first, so that lanes that parted meet again where their ways join.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "driver/defects.h"
#include "driver/result.h"
#include "exec/async_copy.h"
#include "exec/counters.h"
#include "exec/program.h"
#include "memory/device_memory.h"
#include "memory/shared_memory.h"

namespace nvidia_sim {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

/// Of what comes now and then: through all launches.
struct DefectCounts {
  NowAndThen stores, loads;
};

/// Which of a launch's blocks are run.
enum class Blocks : uint8_t { kAll, kAllButLast, kLast };

/// One launch.
struct Launch {
  const Kernel* kernel = nullptr;
  Dim3 grid, block;
  uint64_t shared_bytes = 0;  // beyond the kernel's own
  std::vector<uint8_t> params;
  DeviceMemory* memory = nullptr;
  uint64_t seed = 0;              // of the order of blocks and warps
  uint64_t instructions_max = 0;  // of a warp; beyond it the launch has timed out
  Planted planted = {};           // and then nothing is checked that a GPU would not notice
  DefectCounts* counts = nullptr;
  uint64_t seed_of_defects = 0;
  bool checked = true;  // races, and bytes that nobody wrote
  Blocks blocks = Blocks::kAll;
  bool skips_first = false;      // of several blocks
  int architecture = 90;         // compute capability 9.0
  Counters* counters = nullptr;  // nobody counts
};

struct Block {
  const Launch* launch = nullptr;
  Dim3 index;
  SharedMemory shared;
  std::vector<Allocation*> seen;  // by each instruction, the last time
};

struct alignas(64) Line {
  uint8_t bytes[64];
};

struct Warp {
  Block* block = nullptr;
  uint32_t number = 0;  // in the block
  uint32_t alive = 0;   // lanes that have not ended
  bool at_barrier = false;
  std::vector<Line> registers;
  std::vector<uint32_t> predicates;
  const Instruction* current = nullptr;  // for reports
  uint64_t executed = 0;
  std::vector<AsyncCopy> copies;         // on their way
  uint64_t copy_groups[kWarpSize] = {};  // of each lane: committed

  template <typename T>
  T* lanes(uint32_t at) {
    return reinterpret_cast<T*>(reinterpret_cast<uint8_t*>(registers.data()) + at);
  }

  void prepare(Block& its_block, uint32_t its_number);
  /// Before a block begins: the registers are poisoned, threads know their places.
  void begin();
  /// Until all lanes have ended or stand at the block's barrier. Throws Violation.
  void run();

 private:
  struct Group {  // lanes at one place
    size_t at;
    uint32_t lanes;
  };
  std::vector<Group> groups_;

  size_t lowest();
  void advance(size_t group);
  bool passes_barrier() const;
};

/// Carries out a launch: every block, one after the other, in an order that the seed decides.
/// Throws Violation, which says where.
void execute(const Launch& launch);

}  // namespace nvidia_sim
