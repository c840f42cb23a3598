// What the environment asks of software NVIDIA (README.md).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "driver/defects.h"

namespace nvidia_sim {

struct FaultPlan {
  int code = 0;        // 0: the stream hangs
  uint64_t nth = 1;    // launch (of this kernel), or allocation if the code is "out of memory"
  std::string kernel;  // "": any
};

struct Settings {
  int devices = 1;
  uint64_t memory = uint64_t{2} << 30;
  uint64_t seed = 1;
  uint64_t instructions_max = uint64_t{1} << 28;
  int architecture = 90;  // compute capability
  std::vector<FaultPlan> faults;
  std::string fault_once;  // a file: only the first process to make it has the faults
  Planted planted;
  std::string deviations;  // a file to which is appended what launches were spoiled
  std::string counters;    // ... what launches asked of memory
};

/// From the environment. Ends the process with a message if something there cannot be read.
Settings settings_from_environment();

}  // namespace nvidia_sim
