#include "driver/defects.h"

#include <algorithm>
#include <iterator>

namespace nvidia_sim {
namespace {

struct PlantedDefect {
  const char* name;
  const char* op;
  const char* what;
};
constexpr PlantedDefect kDefects[] = {
#define NVIDIA_SIM_DEFECT_ENTRY(name, op, what) {#name, op, what},
    NVIDIA_SIM_DEFECTS(NVIDIA_SIM_DEFECT_ENTRY)
#undef NVIDIA_SIM_DEFECT_ENTRY
};

}  // namespace

bool Planted::add(std::string_view name) {
  const auto at = std::find_if(
      std::begin(kDefects), std::end(kDefects), [&](const PlantedDefect& e) { return name == e.name; });
  if (at == std::end(kDefects)) return false;
  bits_.set(static_cast<size_t>(std::distance(std::begin(kDefects), at)));
  return true;
}

const std::string& list_of_defects() {
  static const std::string text = [] {
    std::string out;
    for (const PlantedDefect& e : kDefects) out += std::string(e.name) + "\t" + e.op + "\t" + e.what + "\n";
    return out;
  }();
  return text;
}

}  // namespace nvidia_sim
