// The memory that the threads of a block share. Each part of it knows who wrote it and who read it
// since what, so that two threads that meet there without a barrier between them are found,
// whatever order they happened to run in.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/device_memory.h"

namespace nvidia_sim {

class SharedMemory {
 public:
  /// For a new block of so many warps. Bounds are checked always, who wrote what only if asked for.
  void reset(uint64_t bytes, uint32_t warps, bool checked);

  /// Checks an access of `thread` (of the block) and gives the place. Throws Violation.
  uint8_t* access(uint32_t thread, uint64_t at, uint32_t bytes, Access access);

  /// A copy into whole words that goes on beside its thread (cp.async) begins: until it has landed nobody, its own
  /// thread included, may use them. Throws Violation.
  void begin_copy(uint32_t thread, uint64_t at, uint32_t bytes);
  /// Its thread has waited for it; gives the place.
  uint8_t* land_copy(uint32_t thread, uint64_t at, uint32_t bytes);

  /// For a defect: what lies in the other block's memory lies here.
  void take_bytes_of(const SharedMemory& other) { data_ = other.data_; }

  /// All threads of the block have met.
  void block_barrier();
  /// All threads of the warp have met.
  void warp_barrier(uint32_t warp) { ++periods_[warp].now; }

 private:
  /// A meeting of threads ends a warp's period. What lies in an earlier one of its own is before
  /// now for its threads; for those of other warps what lies before the block's last barrier is.
  struct Periods {
    uint32_t now = 1;
    uint32_t at_barrier = 0;  // all before this one are over for everybody
  };
  struct Mark {
    uint32_t thread = 0;
    uint32_t period = 0;  // of the thread's warp; 0: never
  };
  struct Shadow {
    Mark writer;
    Mark reader;           // the last
    uint32_t barrier = 0;  // not 0: threads of several warps read, since the barrier of this number
    bool same_warp = false;   // others of the reader's warp read as well
    bool split = false;       // of a word: its bytes have shadows of their own
    bool on_its_way = false;  // of a word: a copy to it has begun
  };

  bool before(const Mark& mark, uint32_t thread) const;
  void check(Shadow& shadow, uint32_t thread, uint64_t byte, Access access);
  void check_read(Shadow& shadow, uint32_t thread, uint64_t byte);
  void check_write(Shadow& shadow, uint32_t thread, uint64_t byte);

  std::vector<uint8_t> data_;
  std::vector<Shadow> words_;
  std::vector<Shadow> bytes_;     // of words that were used in parts; made when there are such
  std::vector<Periods> periods_;  // of each warp
  uint32_t barriers_ = 1;
  bool checked_ = true;
};

}  // namespace nvidia_sim
