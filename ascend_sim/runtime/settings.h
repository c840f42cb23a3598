// What the environment asks of software Ascend, read by aclInit, and the end of a program that
// breaks a rule whose breach a real chip would answer with silent corruption.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "acl.h"
#include "runtime/chip.h"

namespace ascend_sim {

/// One entry of FERRY_ASCEND_SIM_FAULT, "CODE@N" or "CODE@N:OP": the N-th call (from 1) ends so.
struct FaultPlan {
  int code = 0;
  uint64_t nth = 0;
  std::string op;  // "Mm", "Malloc", "MemcpyAsync"...; empty: any launch, or any call of the code's
};

struct Settings {
  const Chip* chip = nullptr;  // FERRY_ASCEND_SIM_CHIP, "Ascend910B1"
  int devices = 1;             // FERRY_ASCEND_SIM_DEVICES, 1 to 8
  uint64_t seed = 1;           // FERRY_ASCEND_SIM_SEED
  uint64_t memory =
      uint64_t{2} << 30;          // FERRY_ASCEND_SIM_MEMORY, bytes for each device, at most 16 GiB
  uint64_t delay_us = 50;         // FERRY_ASCEND_SIM_DELAY_US, the longest of a task
  std::vector<FaultPlan> faults;  // FERRY_ASCEND_SIM_FAULT, by commas
  std::string fault_once;         // FERRY_ASCEND_SIM_FAULT_ONCE: a file; see README.md
  std::vector<std::string> defects;    // FERRY_ASCEND_SIM_DEFECT, by commas
  std::string mutant_op, mutant_kind;  // FERRY_ASCEND_SIM_MUTANT, "OP:KIND"
  std::string deviations;              // FERRY_ASCEND_SIM_DEVIATIONS: a file; see README.md
};

/// As aclInit last read them (defaults before). A value that cannot be read ends the program, with
/// the variable's name: a simulation of something else than what was asked helps nobody.
ASCEND_SIM_EXPORT const Settings& settings();
void read_settings();

/// Ends the program, saying which rule it broke. For breaches that hardware does not report.
[[noreturn]] ASCEND_SIM_EXPORT void violation(const std::string& what);

/// A number from numbers, well mixed: what is random here comes from the seed and a place.
ASCEND_SIM_EXPORT uint64_t mix(uint64_t a, uint64_t b, uint64_t c = 0);

}  // namespace ascend_sim
