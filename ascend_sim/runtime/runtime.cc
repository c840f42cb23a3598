#include "runtime/runtime.h"

#include <algorithm>
#include <cfenv>
#include <thread>

#include "runtime/defects.h"
#include "runtime/error.h"
#include "runtime/faults.h"
#include "runtime/settings.h"

namespace ascend_sim {
namespace {

using Clock = std::chrono::steady_clock;

ASCEND_DEFECT(sync_returns_early,
              "SynchronizeStream",
              "returns while the last task of the stream still runs, once in 4 calls")
ASCEND_DEFECT(event_done_early,
              "RecordEvent",
              "the event counts as reached before the tasks in front of it are done")

thread_local Context* context_of_thread = nullptr;
thread_local Stream* stream_of_worker = nullptr;

/// The moment `timeout_ms` from now; nothing for a negative one.
std::optional<Clock::time_point> deadline(int64_t timeout_ms) {
  if (timeout_ms < 0) return std::nullopt;
  return Clock::now() + std::chrono::milliseconds(timeout_ms);
}

/// Waits until `ready`; false if the deadline came first.
template <class Ready>
bool wait(Lock& lock, const std::optional<Clock::time_point>& until, const Ready& ready) {
  if (until) return runtime().changed.wait_until(lock, *until, ready);
  runtime().changed.wait(lock, ready);
  return true;
}

/// What the defects of waiting need to show: the tasks that nobody waited for take their time.
void dawdle(const Task& task, bool last) {
  constexpr size_t kLarge = size_t{1} << 20;
  if (last && defect("sync_returns_early"))
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  if (task.name == "aclrtMemcpyAsync" && defect("event_done_early"))
    std::this_thread::sleep_for(
        std::chrono::milliseconds(task.uses.front().size >= kLarge ? 20 : 1));
}

/// What a task may be late by: most start at once, one in four after up to
/// FERRY_ASCEND_SIM_DELAY_US.
void delay(uint64_t stream, uint64_t task) {
  const uint64_t longest = settings().delay_us;
  const uint64_t draw = mix(settings().seed, stream, task);
  if (longest == 0 || draw % 4 != 0) return;
  std::this_thread::sleep_for(std::chrono::microseconds((draw >> 8) % (longest + 1)));
}

/// Runs one task's work, without the lock; then what earlier copies left to land.
Outcome run_unlocked(Lock& lock, Stream& stream, const Task& task) {
  const bool last = stream.queue.size() == 1;
  const std::vector<Landing> landings = std::move(stream.landings);
  stream.landings.clear();
  lock.unlock();
  dawdle(task, last);
  delay(stream.number, task.number);
  Outcome outcome = task.run();
  for (const Landing& land : landings) land(task.uses);
  lock.lock();
  return outcome;
}

Outcome run(Lock& lock, Stream& stream, const Task& task) {
  const uint64_t aborts = stream.aborts;
  const auto aborted = [&] { return stream.aborts != aborts; };
  if (task.wait_for) {
    wait(lock, std::nullopt, [&] { return task.wait_for->done || aborted(); });
    return {};
  }
  if (task.hangs) {
    const auto limit = static_cast<int64_t>(runtime().execute_timeout_s * 1000);
    if (wait(lock, deadline(limit), aborted)) return {};
    return {code::kAicoreTimeout, "a task did not end"};
  }
  if (!task.run) return {};
  Outcome outcome = run_unlocked(lock, stream, task);
  return aborted() ? Outcome{} : outcome;
}

/// A mark is reached, by its task or by the end of it all.
void reach(Mark& mark, int code) {
  mark.done = true;
  mark.code = code;
  mark.at = Clock::now();
}

/// What waiting for a stream would tell now: its own failure, or the one that stopped its context.
Outcome failure_of(const Stream& stream) {
  if (stream.failure.code != 0 || stream.context->stopped_by == 0) return stream.failure;
  return {stream.context->stopped_by, "the context stopped after a failure in another stream"};
}

void finish(Stream& stream, Task& task, const Outcome& outcome) {
  if (outcome.code != 0) {
    if (stream.failure.code == 0)
      stream.failure = {outcome.code,
                        "task " + std::to_string(task.number) + " of stream " +
                            std::to_string(stream.number) + " of device " +
                            std::to_string(stream.context->device) + ": " + outcome.story};
    if (stream.context->stops_on_failure && stream.context->stopped_by == 0)
      stream.context->stopped_by = outcome.code;
  }
  if (task.sets) reach(*task.sets, failure_of(stream).code);
  stream.completed = task.number;
  stream.queue.pop_front();
}

/// A stream's thread.
void work(Stream& stream) {
  std::fesetenv(FE_DFL_ENV);  // threads inherit their maker's rounding and flushing
  stream_of_worker = &stream;
  Lock lock(runtime().mutex);
  while (true) {
    wait(lock, std::nullopt, [&] { return stream.closing || !stream.queue.empty(); });
    if (stream.queue.empty()) break;
    const std::shared_ptr<Task> task = stream.queue.front();
    Outcome outcome;
    if (stream.context->stopped_by == 0) {
      stream.running = true;
      outcome = run(lock, stream, *task);
      stream.running = false;
    }
    finish(stream, *task, outcome);
    runtime().changed.notify_all();
  }
  stream.ended = true;
  runtime().changed.notify_all();
}

/// Takes a stream's unreported failure; one that stopped the context stays.
Outcome take_failure(Stream& stream) {
  Outcome failure = failure_of(stream);
  if (stream.context->stopped_by == 0) stream.failure = {};
  return failure;
}

int report(const Outcome& failure) {
  return failure.code == 0 ? 0 : fail(failure.code, failure.story);
}

}  // namespace

Runtime& runtime() {
  static Runtime& rt = *std::make_unique<Runtime>().release();
  return rt;
}

void merge(Progress& into, const Progress& from) {
  for (const auto& [stream, task] : from) into[stream] = std::max(into[stream], task);
}

bool has_reached(const Stream& stream, uint64_t task) {
  return stream.queue.empty() || stream.queue.front()->number > task;
}

void observe(const Progress& progress) {
  Runtime& rt = runtime();
  merge(rt.observed, progress);
  rt.unobserved.remove_if(
      [&](const auto& entry) { return entry.second->number <= rt.observed[entry.first]; });
}

Context* current_context() {
  return runtime().contexts.contains(context_of_thread) ? context_of_thread : nullptr;
}

void set_current_context(Context* context) { context_of_thread = context; }

Stream* find_stream(aclrtStream handle, int& code) {
  Context* context = current_context();
  if (!context) {
    code = fail(code::kNoContext, "call aclrtSetDevice in this thread first");
    return nullptr;
  }
  if (!handle) return context->default_stream.get();
  const auto it = runtime().streams.find(handle);
  if (it == runtime().streams.end()) {
    code = fail(code::kInvalidHandle, "that is no stream, or it was destroyed");
    return nullptr;
  }
  if (it->second->context != context) {
    code = fail(code::kStreamContext, "the thread's context is another one");
    return nullptr;
  }
  return it->second.get();
}

int submit(Stream& stream, std::shared_ptr<Task> task) {
  Runtime& rt = runtime();
  if (stream.context->stopped_by != 0)
    return fail(stream.context->stopped_by,
                "the context stopped after a failure; nothing new runs");
  task->number = ++stream.submitted;
  stream.implies[stream.number] = task->number;
  if (task->wait_for) merge(stream.implies, task->wait_for->implies);
  if (task->sets) {
    task->sets->implies = stream.implies;
    if (defect("event_done_early")) reach(*task->sets, 0);
  }
  if (!task->uses.empty()) rt.unobserved.emplace_back(stream.number, task);
  stream.queue.push_back(std::move(task));
  if (!stream.started) {
    stream.started = true;
    std::thread(work, std::ref(stream)).detach();
  }
  rt.changed.notify_all();
  return 0;
}

int synchronize(Lock& lock, const std::vector<Stream*>& streams, int64_t timeout_ms) {
  struct Target {
    Stream* stream;
    uint64_t task;
    uint64_t aborts;
  };
  std::vector<Target> targets;
  for (Stream* stream : streams) {
    const bool early = now_and_then("sync_returns_early", 4) && stream->submitted > 0;
    targets.push_back({stream, stream->submitted - (early ? 1 : 0), stream->aborts});
  }
  const auto aborted = [&](const Target& t) { return t.stream->aborts != t.aborts; };
  const auto over = [&](const Target& t) { return has_reached(*t.stream, t.task) || aborted(t); };
  if (!wait(lock, deadline(timeout_ms), [&] {
        return std::all_of(targets.begin(), targets.end(), over);
      }))
    return fail(code::kStreamSyncTimeout,
                "tasks are not done after " + std::to_string(timeout_ms) + " ms");
  for (const Target& t : targets)
    if (aborted(t)) return fail(t.stream->abort_code, "the tasks that were waited for are gone");
  Outcome first;
  for (const Target& t : targets) {
    observe(t.stream->implies);
    const Outcome failure = take_failure(*t.stream);
    if (first.code == 0) first = failure;
  }
  return report(first);
}

int synchronize(Lock& lock, const std::shared_ptr<Mark>& mark, int64_t timeout_ms) {
  if (!wait(lock, deadline(timeout_ms), [&] { return mark->done; }))
    return fail(code::kEventSyncTimeout,
                "the event is not reached after " + std::to_string(timeout_ms) + " ms");
  observe(mark->implies);
  if (mark->code == 0) return 0;
  for (const auto& [number, task] : mark->implies)
    for (const auto& [handle, stream] : runtime().streams)
      if (stream->number == number && stream->failure.code == mark->code)
        return report(take_failure(*stream));
  return fail(mark->code, "a task before the event failed");
}

int abort_streams(Lock& lock, const std::vector<Stream*>& streams, int code, int64_t timeout_ms) {
  for (Stream* stream : streams) {
    ++stream->aborts;
    stream->abort_code = code;
    auto first = stream->queue.begin();
    if (stream->running) ++first;
    for (auto it = first; it != stream->queue.end(); ++it)
      if ((*it)->sets) reach(*(*it)->sets, code);
    stream->queue.erase(first, stream->queue.end());
    stream->failure = {};
    stream->landings.clear();
  }
  runtime().changed.notify_all();
  if (!wait(lock, deadline(timeout_ms), [&] {
        return std::all_of(
            streams.begin(), streams.end(), [](const Stream* s) { return s->queue.empty(); });
      }))
    return fail(code::kWaitTimeout, "a running task did not end");
  for (const Stream* stream : streams) observe(stream->implies);
  return 0;
}

std::unique_ptr<Stream> make_stream(Context& context) {
  auto stream = std::make_unique<Stream>();
  stream->number = ++runtime().streams_made;
  stream->context = &context;
  return stream;
}

void close_stream(Lock& lock, Stream& stream, bool force) {
  if (force) abort_streams(lock, {&stream}, code::kStreamAbort, -1);
  stream.closing = true;
  runtime().changed.notify_all();
  wait(lock, std::nullopt, [&] { return stream.ended || !stream.started; });
  observe(stream.implies);
}

std::vector<Stream*> streams_of(const Context& context) {
  std::vector<Stream*> out{context.default_stream.get()};
  for (const auto& [handle, stream] : runtime().streams)
    if (stream->context == &context) out.push_back(stream.get());
  return out;
}

std::vector<Stream*> streams_of_device(int device) {
  std::vector<Stream*> out;
  for (const auto& [key, context] : runtime().contexts)
    if (context->device == device)
      for (Stream* stream : streams_of(*context)) out.push_back(stream);
  return out;
}

void check_unused(const Range& range, const char* call) {
  for (const auto& [stream, task] : runtime().unobserved)
    for (const Range& used : task->uses)
      if (used.overlaps(range))
        violation(std::string(call) + " gives back memory that " + task->name + " (task " +
                  std::to_string(task->number) + " of stream " + std::to_string(stream) +
                  ") uses, and nothing has waited for that task");
}

int pending_failure(bool clear) {
  const Context* context = current_context();
  if (!context) return 0;
  for (Stream* stream : streams_of(*context)) {
    const int code = failure_of(*stream).code;
    if (code == 0) continue;
    return clear ? report(take_failure(*stream)) : code;
  }
  return 0;
}

bool owned_device_memory(const Range& range) {
  const std::optional<int> device = device_of_address(reinterpret_cast<const void*>(range.begin));
  if (!device || *device >= static_cast<int>(runtime().devices.size())) return false;
  const Device& d = *runtime().devices[static_cast<size_t>(*device)];
  return d.memory && (range.size == 0 || d.memory->owns(range));
}

int launch_op(aclrtStream handle, OpLaunch launch) {
  Runtime& rt = runtime();
  Lock lock(rt.mutex);
  int code = 0;
  Stream* stream = find_stream(handle, code);
  if (!stream) return code;
  Device& device = *rt.devices[static_cast<size_t>(stream->context->device)];
  auto task = std::make_shared<Task>();
  task->name = "aclnn" + launch.op;
  task->uses = launch.reads;
  task->uses.insert(task->uses.end(), launch.writes.begin(), launch.writes.end());
  Outcome fault = fault_of_launch(device, launch);
  for (const Range& range : task->uses) {
    const std::optional<int> owner = device_of_address(reinterpret_cast<void*>(range.begin));
    const bool reachable = owner && (*owner == device.number || device.peers.contains(*owner));
    if (fault.code == 0 && (!owned_device_memory(range) || !reachable))
      fault = {code::kAicoreException,
               "an address is outside the memory that the device may touch"};
  }
  if (is_hang(fault.code))
    task->hangs = true;
  else if (fault.code != 0)
    task->run = [fault] { return fault; };
  else
    task->run = std::move(launch.run);
  return submit(*stream, std::move(task));
}

std::optional<int> determinism_level() {
  const Lock lock(runtime().mutex);
  const Context* context = current_context();
  if (!context) return std::nullopt;
  const auto own = context->options.find(0);
  if (own != context->options.end()) return static_cast<int>(own->second);
  const auto all = runtime().options.find(0);
  return all == runtime().options.end() ? 0 : static_cast<int>(all->second);
}

bool initialised() {
  const Lock lock(runtime().mutex);
  return runtime().initialised;
}

bool is_device_address(const void* p) { return device_of_address(p).has_value(); }

void land_after_next_task(Landing landing) {
  const Lock lock(runtime().mutex);
  stream_of_worker->landings.push_back(std::move(landing));
}

}  // namespace ascend_sim
