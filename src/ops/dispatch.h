// The one point through which every op reaches a device: dispatch() picks the kernel from the op's
// table, plans, provides workspace, tells observers, launches. Nothing else calls kernels.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/flight_record.h"
#include "ops/kernel_table.h"
#include "tensor/tensor.h"

namespace ferry::ops {

struct NamedView {
  const char* name;
  View view;
};

/// A scalar among an op's arguments (an epsilon, a flag as 0 or 1).
struct NamedNumber {
  const char* name;
  double value;
};

/// One call of a kernel, as observers see it. What a kernel adds to or updates in place is named
/// among the inputs and among the outputs.
struct OpCall {
  /// Where a view lies when the call is launched again.
  using Place = std::function<View(const char* name, const View&)>;

  const char* op;
  Device& device;
  std::vector<NamedView> inputs;
  std::vector<NamedView> outputs;
  std::vector<NamedNumber> numbers;
  /// Launches the kernel that `on` has for the op: the same arguments, but each view is what
  /// `place` makes of it (asked once for each, also if it is input and output). May be kept beyond
  /// the call. Throws DeviceError if `on` has no such kernel.
  std::function<void(Device& on, const Place& place)> relaunch;
};

/// Watches every call while installed: profiling, hunting NaN, injecting faults, verifying.
/// Observers enqueue on the stream or synchronise it themselves; dispatch never does.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void before(const OpCall&) {}
  virtual void after(const OpCall&) {}
  /// False: the call is only looked at, nothing is launched (a rehearsal, whose memory holds
  /// nothing).
  virtual bool launches(const OpCall&) { return true; }
  /// The calls that follow belong to this layer of the model: 0 the embedding, then the blocks
  /// from 1, then what comes after them.
  virtual void layer(int) {}
};

/// Installs an observer on this thread until destroyed. The first installed is nearest to the
/// kernel: asked last before a launch and first after it.
class Observing {
 public:
  explicit Observing(Observer& observer);
  ~Observing();
  Observing(const Observing&) = delete;
  Observing& operator=(const Observing&) = delete;
};

/// While one exists nobody on this thread watches: what a judge computes is no part of what it
/// judges.
class Unobserved {
 public:
  Unobserved();
  ~Unobserved();
  Unobserved(const Unobserved&) = delete;
  Unobserved& operator=(const Unobserved&) = delete;

 private:
  std::vector<Observer*> observers_;
};

/// Copies a contiguous view to another of the same shape and type on the same device, where
/// observers see it, as the op "copy": what keeps a cache uses it.
void copy(const View& to, const View& from, Device& device);

/// Said by models at the border of each layer, with the tape's numbers. Free of cost when nobody
/// observes.
void begin_layer(int layer);

namespace detail {
bool observed();
void notify_before(const OpCall& call);
void notify_after(const OpCall& call);
bool launches(const OpCall& call);
[[noreturn]] void throw_missing(const char* op, Device& device, const char* why);

struct Describe {  // the visitor that turns an Args struct into an OpCall
  OpCall& call;
  void in(const char* name, const View& v) {
    if (v.given()) call.inputs.push_back({name, v});
  }
  void out(const char* name, const View& v) {
    if (v.given()) call.outputs.push_back({name, v});
  }
  void number(const char* name, double value) { call.numbers.push_back({name, value}); }
  void repeat(const char*, const View&) {}
};

struct Members {  // the visitor that finds the views of an Args struct that is ours to change
  std::vector<std::pair<const char*, View*>> found;
  void in(const char* name, const View& v) {
    for (const auto& f : found)
      if (f.second == &v) return;
    // visit() is const because kernels' arguments are; the struct visited here is not.
    if (v.given()) found.emplace_back(name, const_cast<View*>(&v));
  }
  void out(const char* name, const View& v) { in(name, v); }
  void number(const char*, double) {}
  void repeat(const char*, const View& v) { const_cast<View&>(v) = {}; }
};

/// Plans, provides workspace, and calls `around` with the launch.
template <class Args, class Around>
void launch_on(const KernelTable<Args>& table,
               const Args& args,
               const HostSegments* segments,
               Device& device,
               Around&& around) {
  const Kernel<Args>& kernel = table.on(device.kind());
  if (!kernel.present()) throw_missing(table.op, device, kernel.missing_because);
  Plan plan = kernel.plan != nullptr ? kernel.plan(args) : Plan{};
  plan.segments = segments;
  std::unique_ptr<Memory> workspace;  // freed in stream order by the device's pool
  if (plan.workspace_bytes > 0) workspace = std::make_unique<Memory>(device, plan.workspace_bytes);
  void* const memory = workspace ? workspace->data : nullptr;
  around([&] {
    const flight::InOp launching(table.op);
    device.stream().begin(table.op);
    kernel.launch(plan, args, memory, device.stream());
  });
}

template <class Args>
void relaunch(const KernelTable<Args>& table,
              Args args,
              const HostSegments* segments,
              Device& device,
              const OpCall::Place& place) {
  Members members;
  args.visit(members);
  for (const auto& [name, view] : members.found) *view = place(name, *view);
  launch_on(table, args, segments, device, [](auto&& launch) { launch(); });
}
}  // namespace detail

/// Launches the op's kernel for the device. Args offers visit(v): v.in(name, view), v.out(name,
/// view), v.number(name, value) for scalars that a judge or a reader of reports needs, and
/// v.repeat(name, view) for what repeats an input in another layout and can be done without.
/// `segments`: Plan::segments, of ops that take Segments.
template <class Args>
void dispatch(const KernelTable<Args>& table,
              const Args& args,
              Device& device,
              const std::shared_ptr<const HostSegments>& segments = nullptr) {
  detail::launch_on(table, args, segments.get(), device, [&](auto&& launch) {
    if (!detail::observed()) return launch();
    OpCall call{.op = table.op,
                .device = device,
                .relaunch = [&table, args, segments](Device& on, const OpCall::Place& place) {
                  detail::relaunch(table, args, segments.get(), on, place);
                }};
    args.visit(detail::Describe{call});
    detail::notify_before(call);
    if (detail::launches(call)) launch();
    detail::notify_after(call);
  });
}

}  // namespace ferry::ops
