// The Ascend chips by the name that the runtime gives them: which Ferry runs on, which it refuses.
#pragma once

#include <string_view>

namespace ferry::acl {

struct Chip {
  const char* prefix;   // of the runtime's name: "Ascend910B1"
  const char* family;   // "910B (Atlas A2)"
  const char* refused;  // why Ferry does not run there; nullptr: it does
  int cube_cores;       // matrix units of one device
  double clock_ghz;
  double bandwidth_gb_s;  // memory, as the tiling model counts it: 32 bytes a cycle and core

  /// Dense bf16 or fp16: each matrix unit does 16 x 16 x 16 multiply-adds a cycle.
  double tflops_bf16() const { return cube_cores * 16.0 * 16 * 16 * 2 * clock_ghz * 1e-3; }
};

/// The entry whose prefix is the longest that fits; nullptr for a chip that is not known.
const Chip* find_chip(std::string_view soc_name);

}  // namespace ferry::acl
