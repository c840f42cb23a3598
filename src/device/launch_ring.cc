#include "device/launch_ring.h"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

namespace ferry {

std::string launch_name(const char* op, const char* call) {
  return *op == '\0' ? std::string(call) : fmt::format("{} ({})", op, call);
}

std::string LaunchRing::open_ops(uint64_t to) const {
  std::string ops;
  std::vector<const char*> different;
  for (uint64_t n = std::max(completed_, launched_ < kRing ? 0 : launched_ - kRing);
       n < std::min(to, launched_);
       ++n) {
    const char* const op = ring_[n % kRing].op;
    if (std::find(different.begin(), different.end(), op) != different.end()) continue;
    different.push_back(op);
    ops += (ops.empty() ? "" : ", ") + std::string(op);
  }
  return ops;
}

std::string LaunchRing::suspects(const std::string& call, const char* advice) const {
  const uint64_t open = launched_ - completed_;
  const auto at = [&](uint64_t n) {
    const Launch& launch = ring_[n % kRing];
    return launch_name(launch.op, launch.call);
  };
  if (open == 0) return call.empty() ? "nothing that was launched" : call;
  if (open == 1 && call.empty()) return at(launched_ - 1);
  const uint64_t first = std::max(completed_, launched_ < kRing ? 0 : launched_ - kRing);
  std::vector<std::string> different;
  for (uint64_t n = first; n < launched_; ++n)
    if (std::find(different.begin(), different.end(), at(n)) == different.end())
      different.push_back(at(n));
  if (!call.empty() && std::find(different.begin(), different.end(), call) == different.end())
    different.push_back(call);
  constexpr size_t kShown = 24;
  std::string list;
  for (size_t i = 0; i < different.size() && i < kShown; ++i)
    list += (i == 0 ? "" : ", ") + different[i];
  if (different.size() > kShown) list += fmt::format(" and {} more", different.size() - kShown);
  return fmt::format("one of launches {} to {}: {}; {}",
                     completed_ + 1,
                     launched_ + (call.empty() ? 0 : 1),
                     list,
                     advice);
}

}  // namespace ferry
