// The state behind AscendCL's calls: devices, contexts, streams and what is queued on them, events.
// One lock guards it all; tasks themselves run without it, each stream's on its own thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "acl.h"
#include "runtime/memory.h"

namespace ascend_sim {

struct Stream;

/// What running a task came to: 0, or a device fault and its story.
struct Outcome {
  int code = 0;
  std::string story;
};

/// How far streams must have come: stream number -> number of its task. A stream that waited for an
/// event of another one implies that one's tasks too.
using Progress = std::map<uint64_t, uint64_t>;
void merge(Progress& into, const Progress& from);

/// A place in a stream that an event took: done when the tasks before it are.
struct Mark {
  Progress implies;
  bool done = false;
  int code = 0;  // of the stream's failure before it, if that was not reported yet
  std::chrono::steady_clock::time_point at;
};

struct Event {
  std::shared_ptr<Mark> mark;  // null before the first record
  uint32_t flags = 0;
  bool keeps_time = false;
  bool repeats = false;  // of aclrtCreateEventExWithFlag
};

struct Task {
  std::string name;         // "aclnnMm", "aclrtMemcpyAsync"
  std::vector<Range> uses;  // device memory, and pinned host memory
  std::function<Outcome()> run;
  std::shared_ptr<Mark> wait_for;  // instead of run
  std::shared_ptr<Mark> sets;      // beside it
  uint64_t number = 0;             // in its stream, from 1
  bool hangs = false;
};

/// What lands late: told which memory the task used that came before it.
using Landing = std::function<void(const std::vector<Range>& met)>;

struct Context {
  int device = 0;
  bool is_default = false;
  std::unique_ptr<Stream> default_stream;
  bool stops_on_failure = false;
  int stopped_by = 0;              // the fault after which nothing runs any more
  std::map<int, int64_t> options;  // aclrtCtxSetSysParamOpt
};

struct Stream {
  uint64_t number = 0;
  Context* context = nullptr;
  uint64_t priority = 0;
  bool failure_mode_set = false;
  bool started = false;  // its thread
  bool closing = false;
  bool ended = false;                      // the thread is gone
  std::list<std::shared_ptr<Task>> queue;  // the first may be running
  bool running = false;
  uint64_t submitted = 0;
  uint64_t completed = 0;
  Progress implies;  // what completing everything submitted so far implies
  Outcome failure;   // the first that no call has reported
  uint64_t aborts = 0;
  int abort_code = 0;             // of the last abort
  std::vector<Landing> landings;  // of what lands late; by the worker alone
};

struct Device {
  int number = 0;
  std::unique_ptr<DeviceMemory> memory;
  std::set<int> peers;         // whose memory this device may touch
  Context* context = nullptr;  // the one that aclrtSetDevice makes
  int references = 0;          // aclrtSetDevice less aclrtResetDevice
  std::vector<Range> bad_memory;
};

/// Lives as long as the process.
struct Runtime {
  std::mutex mutex;
  std::condition_variable changed;  // anything: a task ended, an abort, a submission
  bool initialised = false;
  std::vector<std::unique_ptr<Device>> devices;
  std::map<Context*, std::unique_ptr<Context>> contexts;  // the devices' own among them
  std::map<aclrtStream, std::unique_ptr<Stream>> streams;
  std::map<aclrtEvent, std::unique_ptr<Event>> events;
  PinnedMemory pinned;
  Progress observed;  // what the host has waited for
  /// Tasks of which the host does not know yet that they are over: whose memory must stay.
  std::list<std::pair<uint64_t, std::shared_ptr<const Task>>> unobserved;
  std::map<int, int64_t> options;  // aclrtSetSysParamOpt
  uint64_t execute_timeout_s = 600;
  uint64_t streams_made = 0;
};

using Lock = std::unique_lock<std::mutex>;
Runtime& runtime();

/// The calling thread's context; null if it has none.
Context* current_context();
void set_current_context(Context* context);

/// The stream that a handle means to this thread (null: its context's default stream) or, with
/// fail() done, null: 107002 without a context, 107003 for another context's, 107017 for none at
/// all.
Stream* find_stream(aclrtStream handle, int& code);

/// Whether the stream's task of that number is over.
bool has_reached(const Stream& stream, uint64_t task);

/// Queues. A stopped context takes nothing: answers its fault.
int submit(Stream& stream, std::shared_ptr<Task> task);

/// Waits for what is queued on the streams; reports the first failure among them. Negative: for
/// ever.
int synchronize(Lock& lock, const std::vector<Stream*>& streams, int64_t timeout_ms);
/// The same for an event's mark.
int synchronize(Lock& lock, const std::shared_ptr<Mark>& mark, int64_t timeout_ms);

/// Throws away what is queued, wakes who waits (with `code`), and waits for the running tasks.
int abort_streams(Lock& lock, const std::vector<Stream*>& streams, int code, int64_t timeout_ms);

/// Ends a stream's thread; its queue must be empty, or is thrown away when `force`.
void close_stream(Lock& lock, Stream& stream, bool force);
std::unique_ptr<Stream> make_stream(Context& context);

/// The host has learnt that streams came this far: memory that was used until there may go.
void observe(const Progress& progress);

std::vector<Stream*> streams_of(const Context& context);
std::vector<Stream*> streams_of_device(int device);

/// Ends the program if a task that the host has not waited for uses `range`.
void check_unused(const Range& range, const char* call);

/// Reports and clears a failure that no call has reported, of any stream of the thread's context.
int pending_failure(bool clear);

/// Memory that a call names: all of `range` must be device memory that the program owns.
bool owned_device_memory(const Range& range);

// --- what libnnopbase uses ----------------------------------------------------------------------

/// One launch of an op.
struct OpLaunch {
  std::string op;
  std::vector<Range> reads,
      writes;  // device memory; their addresses also tell equal launches apart
  std::function<Outcome()> run;
  uint64_t signature = 0;  // equal for launches of the same op on the same tensors
};
/// Queues an op; injects the faults that were asked for. Answers 0 or the runtime's error.
ASCEND_SIM_EXPORT int launch_op(aclrtStream stream, OpLaunch launch);

/// The determinism level of the thread's context; nothing if it has none.
ASCEND_SIM_EXPORT std::optional<int> determinism_level();
/// Whether aclInit was called.
ASCEND_SIM_EXPORT bool initialised();
/// Whether the address is one of a device's (allocated or not).
ASCEND_SIM_EXPORT bool is_device_address(const void* p);
/// Runs `landing` on the calling stream's thread after that stream's next task.
ASCEND_SIM_EXPORT void land_after_next_task(Landing landing);

}  // namespace ascend_sim
