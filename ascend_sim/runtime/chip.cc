#include "runtime/chip.h"

#include <algorithm>

namespace ascend_sim {

const std::vector<Chip>& known_chips() {
  using enum ChipFamily;
  static const std::vector<Chip> chips = {
      {"Ascend910B1", k910B, 24, 48, 1.85},
      {"Ascend910B2", k910B, 24, 48, 1.80},
      {"Ascend910B3", k910B, 20, 40, 1.80},
      {"Ascend910B4", k910B, 20, 40, 1.50},
      {"Ascend910_9391", k910C, 24, 48, 1.85},
      {"Ascend910_9392", k910C, 24, 48, 1.85},
      {"Ascend910_9382", k910C, 24, 48, 1.80},
      {"Ascend910_9372", k910C, 20, 40, 1.80},
      {"Ascend910_9362", k910C, 20, 40, 1.50},
      {"Ascend310P3", k310P, 8, 8, 1.06},
      {"Ascend950PR_9589", k950, 32, 64, 1.65},
      {"Ascend950PR_9599", k950, 36, 72, 1.80},
      {"Ascend950DT_9591", k950, 36, 72, 1.80},
      {"Ascend950DT_95A1", k950, 36, 72, 1.80},
  };
  return chips;
}

const Chip* find_chip(std::string_view name) {
  const std::vector<Chip>& chips = known_chips();
  const auto it =
      std::find_if(chips.begin(), chips.end(), [&](const Chip& c) { return c.name == name; });
  return it == chips.end() ? nullptr : &*it;
}

}  // namespace ascend_sim
