#include "device/ascend/chips.h"

#include <cstring>

namespace ferry::acl {
namespace {

constexpr const char* kA2 = "910B (Atlas A2)";
constexpr const char* kA3 = "910C (Atlas A3), one die";
constexpr const char* k310 = "310P (Atlas inference)";
constexpr const char* k950 = "950 (A5)";
constexpr const char* kNoBf16 =
    "it has no bfloat16 and lacks the attention and optimizer ops that Ferry needs";
constexpr const char* kOtherOps =
    "its ops have other rules (types, alignment, attention) that Ferry has not been written for";

constexpr double rate(int cores, double ghz) { return 32.0 * cores * ghz; }

constexpr Chip kChips[] = {
    {"Ascend910B1", kA2, nullptr, 24, 1.85, rate(24, 1.85)},
    {"Ascend910B2", kA2, nullptr, 24, 1.80, rate(24, 1.80)},
    {"Ascend910B3", kA2, nullptr, 20, 1.80, rate(20, 1.80)},
    {"Ascend910B4", kA2, nullptr, 20, 1.50, rate(20, 1.50)},
    {"Ascend910_939", kA3, nullptr, 24, 1.85, rate(24, 1.85)},
    {"Ascend910_938", kA3, nullptr, 24, 1.80, rate(24, 1.80)},
    {"Ascend910_937", kA3, nullptr, 20, 1.80, rate(20, 1.80)},
    {"Ascend910_936", kA3, nullptr, 20, 1.50, rate(20, 1.50)},
    {"Ascend910_95", k950, kOtherOps, 32, 1.65, 0},
    {"Ascend310P", k310, kNoBf16, 8, 1.06, 0},
    {"Ascend950", k950, kOtherOps, 32, 1.65, 0},
    {"Ascend910", "910 (Atlas training, the first)", kNoBf16, 32, 1.0, 0},
};

}  // namespace

const Chip* find_chip(std::string_view soc_name) {
  const Chip* best = nullptr;
  for (const Chip& chip : kChips)
    if (soc_name.starts_with(chip.prefix) &&
        (best == nullptr || std::strlen(chip.prefix) > std::strlen(best->prefix)))
      best = &chip;
  return best;
}

}  // namespace ferry::acl
