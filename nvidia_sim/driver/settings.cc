#include "driver/settings.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace nvidia_sim {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

[[noreturn]] void unreadable(const char* name, const std::string& value, const std::string& why) {
  std::fprintf(stderr, "software NVIDIA: %s=%s: %s\n", name, value.c_str(), why.c_str());
  std::exit(3);
}

bool parse(std::string_view text, uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

uint64_t number(const char* name, uint64_t otherwise, uint64_t least, uint64_t most) {
  const std::string value = variable(name);
  if (value.empty()) return otherwise;
  uint64_t out = 0;
  if (!parse(value, out) || out < least || out > most)
    unreadable(
        name,
        value,
        "expected a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return out;
}

std::vector<FaultPlan> faults() {
  constexpr const char* kName = "FERRY_NVIDIA_SIM_FAULT";
  const std::string value = variable(kName);
  std::vector<FaultPlan> out;
  for (size_t begin = 0; begin < value.size();) {
    const size_t end = std::min(value.find(',', begin), value.size());
    const std::string word = value.substr(begin, end - begin);
    begin = end + 1;
    FaultPlan plan;
    const size_t at = word.find('@'), colon = std::min(word.find(':'), word.size());
    uint64_t code = 0;
    const bool known = at != std::string::npos && at < colon &&
                       (word.substr(0, at) == "hang" ||
                        (parse(word.substr(0, at), code) && code > 0 && code <= 999)) &&
                       parse(word.substr(at + 1, colon - at - 1), plan.nth) && plan.nth > 0;
    if (!known) unreadable(kName, value, "expected CODE@N, CODE@N:KERNEL or hang@N");
    plan.code = static_cast<int>(code);
    if (colon < word.size()) plan.kernel = word.substr(colon + 1);
    out.push_back(plan);
  }
  return out;
}

Planted defects() {
  constexpr const char* kName = "FERRY_NVIDIA_SIM_DEFECT";
  const std::string value = variable(kName);
  Planted out;
  for (size_t begin = 0; begin < value.size();) {
    const size_t end = std::min(value.find(',', begin), value.size());
    const std::string word = value.substr(begin, end - begin);
    if (!out.add(word)) unreadable(kName, value, "there is no defect \"" + word + "\"");
    begin = end + 1;
  }
  return out;
}

}  // namespace

Settings settings_from_environment() {
  Settings s;
  s.devices = static_cast<int>(number("FERRY_NVIDIA_SIM_DEVICES", 1, 0, 8));
  s.memory = number("FERRY_NVIDIA_SIM_MEMORY", s.memory, 1 << 20, uint64_t{16} << 30);
  s.seed = number("FERRY_NVIDIA_SIM_SEED", 1, 0, UINT64_MAX);
  s.instructions_max =
      number("FERRY_NVIDIA_SIM_INSTRUCTIONS", s.instructions_max, 1000, UINT64_MAX);
  s.architecture = static_cast<int>(number("FERRY_NVIDIA_SIM_ARCHITECTURE", 90, 70, 90));
  s.faults = faults();
  s.fault_once = variable("FERRY_NVIDIA_SIM_FAULT_ONCE");
  s.planted = defects();
  s.deviations = variable("FERRY_NVIDIA_SIM_DEVIATIONS");
  s.counters = variable("FERRY_NVIDIA_SIM_COUNTERS");
  return s;
}

}  // namespace nvidia_sim
