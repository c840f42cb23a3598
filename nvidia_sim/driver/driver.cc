#include "driver/driver.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cfenv>
#include <cstdio>

#include "driver/result.h"
#include "exec/decode.h"

namespace nvidia_sim {
namespace {

constexpr size_t kQueueMax = 1024;

/// Work is done with arithmetic as it is by default, whatever the thread that happens to do it has
/// asked for: programs flush subnormal numbers.
class PlainArithmetic {
 public:
  PlainArithmetic() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~PlainArithmetic() { std::fesetenv(&saved_); }
  PlainArithmetic(const PlainArithmetic&) = delete;
  PlainArithmetic& operator=(const PlainArithmetic&) = delete;

 private:
  std::fenv_t saved_;
};

}  // namespace

CUcontext Driver::primary_context(int device) {
  auto& context = contexts_[device];
  if (context == nullptr) context = std::make_unique<CUcontext_>(device, settings_.memory);
  return context.get();
}

CUstream Driver::create_stream(CUcontext context) {
  auto stream = std::make_unique<CUstream_>();
  stream->context = context;
  CUstream_* const handle = stream.get();
  streams_.emplace(handle, std::move(stream));
  return handle;
}

CUevent Driver::create_event(CUcontext context) {
  auto event = std::make_shared<CUevent_>();
  event->context = context;
  CUevent_* const handle = event.get();
  events_.emplace(handle, std::move(event));
  return handle;
}

CUmodule Driver::load_module(CUcontext context, const Module& parsed) {
  auto module = std::make_unique<CUmodule_>();
  module->context = context;
  module->program = decode(parsed, settings_.planted);
  if (settings_.planted.any() && !settings_.deviations.empty()) module->sound = decode(parsed);
  for (const auto& [name, kernel] : module->program.kernels) {
    const auto sound = module->sound.kernels.find(name);
    module->functions[name] = {&kernel,
                               sound == module->sound.kernels.end() ? nullptr : &sound->second};
  }
  CUmodule_* const handle = module.get();
  modules_.emplace(handle, std::move(module));
  return handle;
}

void* Driver::allocate_host(size_t bytes) {
  auto memory = std::make_unique<char[]>(bytes);
  char* const at = memory.get();
  pinned_.emplace(at, std::move(memory));
  pinned_bytes_.emplace(at, bytes);
  return at;
}

bool Driver::known(const CUcontext_* c) const {
  return std::any_of(contexts_.begin(), contexts_.end(), [&](const auto& entry) {
    return entry.second.get() == c;
  });
}

bool Driver::known(const CUfunction_* f) const {
  for (const auto& [handle, module] : modules_)
    for (const auto& [name, function] : module->functions)
      if (&function == f) return true;
  return false;
}

void Driver::destroy(CUstream stream) {
  drain(stream);
  streams_.erase(stream);
}

void Driver::unload(CUmodule module) {
  drain_all(module->context);
  modules_.erase(module);
}

bool Driver::free_host(void* memory) {
  auto* const at = static_cast<char*>(memory);
  if (!pinned_.contains(at)) return false;
  for (const auto& [device, context] : contexts_) drain_all(context.get());
  pinned_.erase(at);
  pinned_bytes_.erase(at);
  return true;
}

bool Driver::is_pinned(const void* memory, size_t bytes) const {
  const auto* const at = static_cast<const char*>(memory);
  auto block = pinned_bytes_.upper_bound(at);
  if (block == pinned_bytes_.begin()) return false;
  --block;
  const auto offset = static_cast<size_t>(at - block->first);
  return offset <= block->second && bytes <= block->second - offset;
}

void Driver::enqueue(CUstream stream, std::function<bool()> work) {
  stream->queue.push_back(std::move(work));
  while (stream->queue.size() > kQueueMax && step(stream)) {
  }
}

void Driver::enqueue_task(CUstream stream, std::function<bool()> right, bool overtakes) {
  std::function<bool()> work = std::move(right);
  if (settings_.planted.any())
    work = [stream, task = std::move(work)] {
      const auto late = static_cast<std::ptrdiff_t>(stream->late.size());  // before this one
      const bool done = task();
      for (std::ptrdiff_t n = 0; n < late; ++n) stream->late[static_cast<size_t>(n)]();
      stream->late.erase(stream->late.begin(), stream->late.begin() + late);
      return done;
    };
  if (overtakes && stream->last_task > stream->done) {
    const uint64_t at = stream->last_task - stream->done - 1;
    stream->queue.insert(stream->queue.begin() + static_cast<std::ptrdiff_t>(at), std::move(work));
    ++stream->last_task;
    return;
  }
  stream->last_task = stream->done + stream->queue.size() + 1;
  enqueue(stream, std::move(work));
}

bool Driver::step(CUstream stream) {
  if (stream->queue.empty() || stream->hangs) return false;
  if (stream->context->error != 0) {
    stream->queue.clear();
    return false;
  }
  const PlainArithmetic plain;
  try {
    if (!stream->queue.front()()) return false;
  } catch (const Violation& v) {
    stream->context->error = v.code();
    report(v.what());
    stream->queue.clear();
    return false;
  }
  // Of a stream that hangs what comes next is never reached.
  if (stream->hangs) return true;
  stream->queue.pop_front();
  ++stream->done;
  return true;
}

void Driver::drain(CUstream stream) {
  while (!stream->queue.empty()) {
    if (step(stream)) continue;
    if (stream->queue.empty()) return;
    if (stream->hangs) {
      ::pause();  // as a card that never comes back
      continue;
    }
    // It waits for an event of another stream.
    bool moved = false;
    for (const auto& [handle, other] : streams_)
      if (other.get() != stream && other->context == stream->context) moved |= step(other.get());
    if (!moved) {
      stream->context->error = result::kLaunchTimeout;
      report("streams wait for each other, or for an event that nothing will record");
      return;
    }
  }
}

void Driver::drain_all(CUcontext context) {
  for (const auto& [handle, stream] : streams_)
    if (stream->context == context) drain(stream.get());
}

/// With FERRY_NVIDIA_SIM_FAULT_ONCE, only the first process to get there has the fault.
bool Driver::takes_place() const {
  if (settings_.fault_once.empty()) return true;
  const int fd = open(settings_.fault_once.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

int Driver::planned_fault(const std::string& kernel) {
  for (size_t n = 0; n < settings_.faults.size(); ++n) {
    const FaultPlan& plan = settings_.faults[n];
    if (plan.code == result::kOutOfMemory || (!plan.kernel.empty() && plan.kernel != kernel))
      continue;
    if (++counted_[n] == plan.nth && takes_place()) return plan.code == 0 ? -1 : plan.code;
  }
  return 0;
}

int Driver::planned_fault_of_allocation() {
  for (size_t n = 0; n < settings_.faults.size(); ++n)
    if (settings_.faults[n].code == result::kOutOfMemory &&
        ++counted_[n] == settings_.faults[n].nth && takes_place())
      return result::kOutOfMemory;
  return 0;
}

void Driver::report(const std::string& text) {
  report_ = text;
  std::fprintf(stderr, "software NVIDIA: %s\n", text.c_str());
}

}  // namespace nvidia_sim
