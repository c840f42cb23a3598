#include "ops/dispatch.h"

#include <algorithm>

#include "base/check.h"

namespace ferry::ops {
namespace {

thread_local std::vector<Observer*> t_observers;

}  // namespace

Observing::Observing(Observer& observer) { t_observers.push_back(&observer); }
Observing::~Observing() { t_observers.pop_back(); }

Unobserved::Unobserved() { observers_.swap(t_observers); }
Unobserved::~Unobserved() { observers_.swap(t_observers); }

void copy(const View& to, const View& from, Device& device) {
  check(to.dtype == from.dtype && to.count() == from.count(), "copy: views of different sizes");
  const auto launch = [](Device& on, const View& target, const View& source) {
    on.copy(target.data, source.data, static_cast<size_t>(source.count()) * size_of(source.dtype));
  };
  if (!detail::observed()) return launch(device, to, from);
  OpCall call{.op = "copy",
              .device = device,
              .inputs = {{"from", from}},
              .outputs = {{"to", to}},
              .relaunch = [=](Device& on, const OpCall::Place& place) {
                const View source = place("from", from);
                launch(on, place("to", to), source);
              }};
  detail::notify_before(call);
  launch(device, to, from);
  detail::notify_after(call);
}

void begin_layer(int layer) {
  flight::set_layer(layer);
  for (auto it = t_observers.rbegin(); it != t_observers.rend(); ++it) (*it)->layer(layer);
}

namespace detail {

bool observed() { return !t_observers.empty(); }

void notify_before(const OpCall& call) {
  for (auto it = t_observers.rbegin(); it != t_observers.rend(); ++it) (*it)->before(call);
}
void notify_after(const OpCall& call) {
  for (Observer* observer : t_observers) observer->after(call);
}
bool launches(const OpCall& call) {
  return std::all_of(
      t_observers.begin(), t_observers.end(), [&](Observer* o) { return o->launches(call); });
}

void throw_missing(const char* op, Device& device, const char* why) {
  throw DeviceError(
      device.name(), 0, fmt::format("{}: no kernel for {}: {}", op, device.name(), why));
}

}  // namespace detail
}  // namespace ferry::ops
