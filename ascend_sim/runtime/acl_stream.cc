// AscendCL's calls about streams and events.
#include <chrono>

#include "runtime/error.h"
#include "runtime/runtime.h"

using namespace ascend_sim;

namespace {

constexpr size_t kStreamsMax = 1984;  // of a device, on 910B and 910C
constexpr size_t kEventsMax = 65536;
constexpr uint32_t kEventSync = 1, kEventProgress = 2, kEventTimeLine = 8;

int create_stream(aclrtStream* out, uint64_t priority) {
  const Lock lock(runtime().mutex);
  Runtime& rt = runtime();
  Context* context = current_context();
  if (!context) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  if (!out) return fail(code::kParam, "stream is null");
  if (streams_of_device(context->device).size() >= kStreamsMax)
    return fail(code::kNoStream, "a device has 1984");
  std::unique_ptr<Stream> stream = make_stream(*context);
  stream->priority = priority;
  *out = stream.get();
  rt.streams[*out] = std::move(stream);
  return 0;
}

int destroy_stream(aclrtStream handle, bool force) {
  Lock lock(runtime().mutex);
  int code = 0;
  if (!handle) return fail(code::kParam, "the default stream ends with its context");
  Stream* stream = find_stream(handle, code);
  if (!stream) return code;
  close_stream(lock, *stream, force);
  runtime().streams.erase(handle);
  return 0;
}

int synchronize_stream(aclrtStream handle, int32_t timeout_ms) {
  Lock lock(runtime().mutex);
  int code = 0;
  if (timeout_ms < -1) return fail(code::kParam, "the timeout is -1 or more");
  Stream* stream = find_stream(handle, code);
  return stream ? synchronize(lock, {stream}, timeout_ms) : code;
}

int create_event(aclrtEvent* out, uint32_t flags, bool keeps_time, bool repeats) {
  const Lock lock(runtime().mutex);
  Runtime& rt = runtime();
  if (!current_context()) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  if (!out) return fail(code::kParam, "event is null");
  if (rt.events.size() >= kEventsMax) return fail(code::kNoEvent, "a device has 65,536");
  auto event = std::make_unique<Event>();
  event->flags = flags;
  event->keeps_time = keeps_time;
  event->repeats = repeats;
  *out = event.get();
  rt.events[*out] = std::move(event);
  return 0;
}

int create_event_with_flags(aclrtEvent* out, uint32_t flags, bool repeats) {
  constexpr uint32_t kKnown = kEventSync | kEventProgress | kEventTimeLine;
  if (flags == 0 || (flags & ~kKnown) != 0)
    return fail(code::kParam, "event flags " + std::to_string(flags) + " are not supported here");
  return create_event(out, flags, (flags & kEventTimeLine) != 0, repeats);
}

Event* find_event(aclrtEvent handle, int& code) {
  const auto it = runtime().events.find(handle);
  if (it != runtime().events.end()) return it->second.get();
  code = fail(code::kInvalidHandle, "that is no event, or it was destroyed");
  return nullptr;
}

int synchronize_event(aclrtEvent handle, int32_t timeout_ms) {
  Lock lock(runtime().mutex);
  int code = 0;
  const Event* event = find_event(handle, code);
  if (!event) return code;
  if (timeout_ms < -1) return fail(code::kParam, "the timeout is -1 or more");
  if (!event->mark) return event->repeats ? 0 : fail(code::kParam, "the event was never recorded");
  const std::shared_ptr<Mark> mark = event->mark;
  return synchronize(lock, mark, timeout_ms);
}

}  // namespace

extern "C" {

ASCEND_SIM_EXPORT aclError aclrtCreateStream(aclrtStream* stream) {
  return create_stream(stream, 0);
}

ASCEND_SIM_EXPORT aclError aclrtCreateStreamWithConfig(aclrtStream* stream,
                                                       uint32_t priority,
                                                       uint32_t flags) {
  constexpr uint32_t kKnown = 1 | 2 | 4 | 8;  // fast launch, fast sync, persistent, huge
  if (priority > 7 || (flags & ~kKnown) != 0)
    return fail(code::kParam, "a priority from 0 to 7 and known flags");
  return create_stream(stream, priority);
}

ASCEND_SIM_EXPORT aclError aclrtDestroyStream(aclrtStream stream) {
  return destroy_stream(stream, false);
}

ASCEND_SIM_EXPORT aclError aclrtDestroyStreamForce(aclrtStream stream) {
  return destroy_stream(stream, true);
}

ASCEND_SIM_EXPORT aclError aclrtSynchronizeStream(aclrtStream stream) {
  return synchronize_stream(stream, -1);
}

ASCEND_SIM_EXPORT aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t ms) {
  return synchronize_stream(stream, ms);
}

/// 0 done, 1 not yet.
ASCEND_SIM_EXPORT aclError aclrtStreamQuery(aclrtStream handle, int* status) {
  const Lock lock(runtime().mutex);
  int code = 0;
  const Stream* stream = find_stream(handle, code);
  if (!stream) return code;
  if (!status) return fail(code::kParam, "status is null");
  *status = stream->queue.empty() ? 0 : 1;
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtStreamAbort(aclrtStream handle) {
  Lock lock(runtime().mutex);
  int code = 0;
  Stream* stream = find_stream(handle, code);
  return stream ? abort_streams(lock, {stream}, code::kStreamAbort, -1) : code;
}

/// mode 1: after a failure nothing more runs in the whole context. Once for each stream.
ASCEND_SIM_EXPORT aclError aclrtSetStreamFailureMode(aclrtStream handle, uint64_t mode) {
  const Lock lock(runtime().mutex);
  int code = 0;
  Stream* stream = find_stream(handle, code);
  if (!stream) return code;
  if (mode > 1 || stream->failure_mode_set)
    return fail(code::kParam, "mode is 0 or 1 and can be set once for a stream");
  stream->failure_mode_set = true;
  if (mode == 1) stream->context->stops_on_failure = true;
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtCreateEvent(aclrtEvent* event) {
  return create_event(event, 0, true, false);
}

ASCEND_SIM_EXPORT aclError aclrtCreateEventWithFlag(aclrtEvent* event, uint32_t flags) {
  return create_event_with_flags(event, flags, false);
}

ASCEND_SIM_EXPORT aclError aclrtCreateEventExWithFlag(aclrtEvent* event, uint32_t flags) {
  return create_event_with_flags(event, flags, true);
}

ASCEND_SIM_EXPORT aclError aclrtDestroyEvent(aclrtEvent handle) {
  const Lock lock(runtime().mutex);
  int code = 0;
  if (!find_event(handle, code)) return code;
  runtime().events.erase(handle);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtRecordEvent(aclrtEvent handle, aclrtStream stream_handle) {
  const Lock lock(runtime().mutex);
  int code = 0;
  Event* event = find_event(handle, code);
  Stream* stream = event ? find_stream(stream_handle, code) : nullptr;
  if (!stream) return code;
  auto task = std::make_shared<Task>();
  task->name = "aclrtRecordEvent";
  task->sets = std::make_shared<Mark>();
  event->mark = task->sets;
  return submit(*stream, std::move(task));
}

/// Forgets the record, after what the stream was given so far.
ASCEND_SIM_EXPORT aclError aclrtResetEvent(aclrtEvent handle, aclrtStream stream_handle) {
  const Lock lock(runtime().mutex);
  int code = 0;
  Event* event = find_event(handle, code);
  if (!event || !find_stream(stream_handle, code)) return code;
  if (event->repeats || (event->flags != 0 && (event->flags & kEventSync) == 0))
    return fail(code::kParam, "events of this kind are not reset");
  event->mark = nullptr;
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtStreamWaitEvent(aclrtStream stream_handle, aclrtEvent handle) {
  const Lock lock(runtime().mutex);
  int code = 0;
  const Event* event = find_event(handle, code);
  Stream* stream = event ? find_stream(stream_handle, code) : nullptr;
  if (!stream) return code;
  if (!event->mark) return event->repeats ? 0 : fail(code::kParam, "the event was never recorded");
  auto task = std::make_shared<Task>();
  task->name = "aclrtStreamWaitEvent";
  task->wait_for = event->mark;
  return submit(*stream, std::move(task));
}

/// 0 not ready, 1 complete. One of aclrtCreateEventExWithFlag is complete before its first record.
ASCEND_SIM_EXPORT aclError aclrtQueryEventStatus(aclrtEvent handle, int* status) {
  const Lock lock(runtime().mutex);
  int code = 0;
  const Event* event = find_event(handle, code);
  if (!event) return code;
  if (!status) return fail(code::kParam, "status is null");
  *status = (event->mark ? event->mark->done : event->repeats) ? 1 : 0;
  if (event->mark && event->mark->done) observe(event->mark->implies);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtSynchronizeEvent(aclrtEvent event) {
  return synchronize_event(event, -1);
}

ASCEND_SIM_EXPORT aclError aclrtSynchronizeEventWithTimeout(aclrtEvent event, int32_t ms) {
  return synchronize_event(event, ms);
}

ASCEND_SIM_EXPORT aclError aclrtEventElapsedTime(float* ms,
                                                 aclrtEvent start_handle,
                                                 aclrtEvent end_handle) {
  const Lock lock(runtime().mutex);
  int code = 0;
  const Event* start = find_event(start_handle, code);
  const Event* end = start ? find_event(end_handle, code) : nullptr;
  if (!end) return code;
  const bool done = start->mark && start->mark->done && end->mark && end->mark->done;
  if (!ms || !start->keeps_time || !end->keeps_time || !done)
    return fail(code::kParam, "both events must keep time (flag 8) and be reached");
  *ms = std::chrono::duration<float, std::milli>(end->mark->at - start->mark->at).count();
  return 0;
}

/// Runs a function of the host's in the stream's order, on the stream's thread.
ASCEND_SIM_EXPORT aclError aclrtLaunchHostFunc(aclrtStream handle,
                                               void (*function)(void*),
                                               void* arguments) {
  const Lock lock(runtime().mutex);
  int code = 0;
  Stream* stream = find_stream(handle, code);
  if (!stream) return code;
  if (!function) return fail(code::kParam, "the function is null");
  auto task = std::make_shared<Task>();
  task->name = "aclrtLaunchHostFunc";
  task->run = [function, arguments] {
    function(arguments);
    return Outcome{};
  };
  return submit(*stream, std::move(task));
}

}  // extern "C"
