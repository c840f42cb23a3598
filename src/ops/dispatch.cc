#include "ops/dispatch.h"

#include <algorithm>

#include "base/check.h"

namespace ferry::ops {
namespace {

thread_local std::vector<Observer*> t_observers;

}  // namespace

Observing::Observing(Observer& observer) { t_observers.push_back(&observer); }
Observing::~Observing() { t_observers.pop_back(); }

void begin_layer(int layer) {
  for (auto it = t_observers.rbegin(); it != t_observers.rend(); ++it) (*it)->layer(layer);
}

namespace detail {

bool observed() { return !t_observers.empty(); }

void notify_before(const OpCall& call) {
  for (auto it = t_observers.rbegin(); it != t_observers.rend(); ++it) (*it)->before(call);
}
void notify_after(const OpCall& call) {
  for (auto it = t_observers.rbegin(); it != t_observers.rend(); ++it) (*it)->after(call);
}

void throw_missing(const char* op, Device& device, const char* why) {
  throw DeviceError(
      device.name(), 0, fmt::format("{}: no kernel for {}: {}", op, device.name(), why));
}

}  // namespace detail
}  // namespace ferry::ops
