// The chips that software Ascend can pretend to be.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ascend_sim {

enum class ChipFamily { k910B, k910C, k310P, k950 };

struct Chip {
  std::string name;  // as aclrtGetSocName answers
  ChipFamily family;
  int cube_cores;
  int vector_cores;
  double clock_ghz;

  bool training_family() const {
    return family == ChipFamily::k910B || family == ChipFamily::k910C;
  }
  bool has_bf16() const { return family != ChipFamily::k310P; }
  bool has_fp8() const { return family == ChipFamily::k950; }
};

const std::vector<Chip>& known_chips();
/// Null if the name is none of them.
const Chip* find_chip(std::string_view name);

}  // namespace ascend_sim
