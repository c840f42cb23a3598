// The one point through which every op reaches a device: dispatch() picks the kernel from the op's
// table, plans, provides workspace, tells observers, launches. Nothing else calls kernels.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/kernel_table.h"
#include "tensor/tensor.h"

namespace ferry::ops {

struct NamedView {
  const char* name;
  View view;
};

/// One call of a kernel, as observers see it.
struct OpCall {
  const char* op;
  Device& device;
  std::vector<NamedView> inputs;
  std::vector<NamedView> outputs;
};

/// Watches every call while installed: profiling, hunting NaN, injecting faults, verifying.
/// Observers enqueue on the stream or synchronise it themselves; dispatch never does.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void before(const OpCall&) {}
  virtual void after(const OpCall&) {}
};

/// Installs an observer on this thread until destroyed. The last installed is called first.
class Observing {
 public:
  explicit Observing(Observer& observer);
  ~Observing();
  Observing(const Observing&) = delete;
  Observing& operator=(const Observing&) = delete;
};

namespace detail {
bool observed();
void notify_before(const OpCall& call);
void notify_after(const OpCall& call);
[[noreturn]] void throw_missing(const char* op, Device& device, const char* why);

struct Describe {  // the visitor that turns an Args struct into an OpCall
  OpCall& call;
  void in(const char* name, const View& v) {
    if (v.given()) call.inputs.push_back({name, v});
  }
  void out(const char* name, const View& v) {
    if (v.given()) call.outputs.push_back({name, v});
  }
};
}  // namespace detail

/// Launches the op's kernel for the device. Args offers visit(v): v.in(name, view), v.out(name,
/// view).
template <class Args>
void dispatch(const KernelTable<Args>& table, const Args& args, Device& device) {
  const Kernel<Args>& kernel = table.on(device.kind());
  if (kernel.launch == nullptr) detail::throw_missing(table.op, device, kernel.missing_because);
  const Plan plan = kernel.plan != nullptr ? kernel.plan(args) : Plan{};
  std::unique_ptr<Storage> workspace;  // freed in stream order by the device's pool
  if (plan.workspace_bytes > 0) workspace = std::make_unique<Storage>(device, plan.workspace_bytes);
  void* const memory = workspace ? workspace->data : nullptr;
  device.stream().begin(table.op);
  if (!detail::observed()) return kernel.launch(plan, args, memory, device.stream());
  OpCall call{table.op, device, {}, {}};
  args.visit(detail::Describe{call});
  detail::notify_before(call);
  device.stream().begin(table.op);
  kernel.launch(plan, args, memory, device.stream());
  detail::notify_after(call);
}

}  // namespace ferry::ops
