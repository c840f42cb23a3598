#include "runtime/settings.h"

#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace ascend_sim {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

[[noreturn]] void unreadable(const char* name, const std::string& value, const std::string& why) {
  std::fprintf(stderr, "software Ascend: %s=%s: %s\n", name, value.c_str(), why.c_str());
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

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    if (comma > at) out.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return out;
}

std::vector<FaultPlan> faults() {
  constexpr const char* kName = "FERRY_ASCEND_SIM_FAULT";
  const std::string value = variable(kName);
  std::vector<FaultPlan> out;
  for (const std::string& word : words(value)) {
    FaultPlan plan;
    const size_t at = word.find('@');
    const size_t colon = std::min(word.find(':'), word.size());
    uint64_t code = 0;
    if (at == std::string::npos || at > colon || !parse(word.substr(0, at), code) ||
        !parse(word.substr(at + 1, colon - at - 1), plan.nth) || plan.nth == 0 || code == 0 ||
        code > 999999)
      unreadable(kName, value, "expected CODE@N or CODE@N:OP, such as 507054@20:Mm");
    plan.code = static_cast<int>(code);
    plan.op = colon < word.size() ? word.substr(colon + 1) : "";
    out.push_back(plan);
  }
  return out;
}

std::unique_ptr<const Settings> from_environment() {
  auto out = std::make_unique<Settings>();
  std::string chip = variable("FERRY_ASCEND_SIM_CHIP");
  if (chip.empty()) chip = "Ascend910B1";
  out->chip = find_chip(chip);
  if (!out->chip) {
    std::string known;
    for (const Chip& c : known_chips()) known += " " + c.name;
    unreadable("FERRY_ASCEND_SIM_CHIP", chip, "no such chip; there are" + known);
  }
  out->devices = static_cast<int>(number("FERRY_ASCEND_SIM_DEVICES", 1, 1, 8));
  out->seed = number("FERRY_ASCEND_SIM_SEED", 1, 0, UINT64_MAX);
  out->memory =
      number("FERRY_ASCEND_SIM_MEMORY", uint64_t{2} << 30, uint64_t{1} << 20, uint64_t{16} << 30);
  out->delay_us = number("FERRY_ASCEND_SIM_DELAY_US", 50, 0, 10'000'000);
  out->faults = faults();
  out->fault_once = variable("FERRY_ASCEND_SIM_FAULT_ONCE");
  out->defects = words(variable("FERRY_ASCEND_SIM_DEFECT"));
  const std::string mutant = variable("FERRY_ASCEND_SIM_MUTANT");
  if (!mutant.empty()) {
    const size_t colon = mutant.find(':');
    if (colon == std::string::npos)
      unreadable("FERRY_ASCEND_SIM_MUTANT", mutant, "expected OP:KIND, such as Mm:scaled");
    out->mutant_op = mutant.substr(0, colon);
    out->mutant_kind = mutant.substr(colon + 1);
  }
  out->deviations = variable("FERRY_ASCEND_SIM_DEVIATIONS");
  return out;
}

/// The settings in force. Replaced ones are kept: a worker may still be reading them.
std::atomic<const Settings*>& current() {
  static std::atomic<const Settings*> pointer = from_environment().release();
  return pointer;
}

}  // namespace

const Settings& settings() { return *current().load(std::memory_order_acquire); }

void read_settings() {
  static std::vector<std::unique_ptr<const Settings>>& replaced =
      *std::make_unique<std::vector<std::unique_ptr<const Settings>>>().release();
  replaced.emplace_back(current().exchange(from_environment().release()));
}

void violation(const std::string& what) {
  std::fprintf(stderr, "software Ascend: the program broke a rule: %s\n", what.c_str());
  std::abort();
}

uint64_t mix(uint64_t a, uint64_t b, uint64_t c) {
  uint64_t x = a * 0x9E3779B97F4A7C15u ^ (b + 0x632BE59BD9B4E019u) * 0xD1342543DE82EF95u ^
               (c + 0x2545F4914F6CDD1Du) * 0xDA942042E4DD58B5u;
  for (int i = 0; i < 2; ++i) {
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
  }
  return x ^ (x >> 32);
}

}  // namespace ascend_sim
