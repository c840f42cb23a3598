// The state behind the driver API: devices, streams, events, modules. Nothing runs by itself: what
// is launched waits in its stream until somebody waits for it or asks, as late as a card might be.
// So what is freed, changed or read too early by the host shows.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "driver/cuda.h"
#include "driver/settings.h"
#include "exec/program.h"
#include "exec/warp.h"
#include "memory/device_memory.h"
#include "ptx/module.h"

// The handles of the API are these.
struct CUcontext_ {
  CUcontext_(int its_device, uint64_t bytes) : device(its_device), memory(bytes) {}
  int device;
  nvidia_sim::DeviceMemory memory;
  int error = 0;  // what ended the context; every later call answers it
};

struct CUstream_ {
  CUcontext_* context = nullptr;
  std::deque<std::function<bool()>> queue;  // false: not now, something else comes first
  std::vector<std::function<void()>> late;  // by a defect: what lands behind the next task
  uint64_t done = 0;                        // how much of what was ever put into the queue
  uint64_t last_task = 0;  // the number, from 1 on, of the launch, copy or fill that came last
  bool hangs = false;
};

struct CUevent_ {
  CUcontext_* context = nullptr;
  CUstream_* stream = nullptr;  // where it was recorded last
  uint64_t recorded = 0, passed = 0;
};

struct CUfunction_ {
  const nvidia_sim::Kernel* kernel = nullptr;
  const nvidia_sim::Kernel* sound = nullptr;  // without what is planted, if that is measured
};

struct CUmodule_ {
  CUcontext_* context = nullptr;
  nvidia_sim::Program program, sound;
  std::map<std::string, CUfunction_> functions;
};

namespace nvidia_sim {

class Driver {
 public:
  Driver() : settings_(settings_from_environment()) {}

  const Settings& settings() const { return settings_; }

  CUcontext primary_context(int device);
  CUstream create_stream(CUcontext context);
  CUevent create_event(CUcontext context);
  CUmodule load_module(CUcontext context, const Module& parsed);
  void* allocate_host(size_t bytes);

  bool known(const CUcontext_* c) const;
  bool known(const CUstream_* s) const { return streams_.contains(s); }
  bool known(const CUevent_* e) const { return events_.contains(e); }
  bool known(const CUmodule_* m) const { return modules_.contains(m); }
  bool known(const CUfunction_* f) const;

  /// Carries out what waits in the stream.
  void destroy(CUstream stream);
  /// At once: what waits in a stream and names it has it until then.
  void destroy(CUevent event) { events_.erase(event); }
  std::shared_ptr<CUevent_> held(CUevent event) const { return events_.at(event); }
  void unload(CUmodule module);
  /// Carries out what waits in all streams, which may still use the memory. False: not ours.
  bool free_host(void* memory);
  /// Whether the bytes lie in memory that the device reads by itself.
  bool is_pinned(const void* memory, size_t bytes) const;

  /// Puts work behind what waits in the stream; if that is much, the first is carried out.
  void enqueue(CUstream stream, std::function<bool()> work);
  /// The same of a launch, copy or fill, which by a defect another may overtake.
  void enqueue_task(CUstream stream, std::function<bool()> right, bool overtakes = false);
  /// Writes to the device: now, or by the defect after the stream's next task.
  void land(CUstream stream, Defect late, CUdeviceptr to, std::vector<uint8_t> bytes);
  /// Carries out the first of what waits; false if nothing could be.
  bool step(CUstream stream);
  void drain(CUstream stream);
  void drain_all(CUcontext context);

  /// The code that a launch of the kernel, or an allocation, is planned to fail with; -1: hang;
  /// 0: none.
  int planned_fault(const std::string& kernel);
  int planned_fault_of_allocation();

  bool planted(Defect d) const { return settings_.planted[d]; }
  /// Whether a defect that comes at every nth chance comes now.
  bool now(Defect d, uint64_t nth) { return planted(d) && chances_[d](nth, settings_.seed); }
  /// Carries out a launch when the stream comes to it: right, or as what is planted wants it.
  void carry_out(CUstream stream, const CUfunction_& function, Launch launch);
  /// By a defect: what the last copy to the device brought, in place of these bytes.
  void repeat_last_copy(std::vector<uint8_t>& bytes);

  /// A number for the order of things, new for each launch.
  uint64_t next_seed() { return settings_.seed * 0x9E3779B97F4A7C15u + ++launches_; }

  void report(const std::string& text);
  const std::string& last_report() const { return report_; }

 private:
  bool takes_place() const;
  void execute_spoiled(CUstream stream, Launch launch);
  /// Appends to the file of deviations how many bytes a launch of the kernel left wrong, if it was
  /// never so many.
  void note_deviation(const std::string& kernel, uint64_t wrong_bytes);
  /// Appends to the file of counters what a launch asked of memory.
  void note_counters(const Launch& launch, const Counters& counters) const;

  Settings settings_;
  std::map<int, std::unique_ptr<CUcontext_>> contexts_;
  std::map<const CUstream_*, std::unique_ptr<CUstream_>> streams_;
  std::map<const CUevent_*, std::shared_ptr<CUevent_>> events_;
  std::map<const CUmodule_*, std::unique_ptr<CUmodule_>> modules_;
  std::map<const char*, std::unique_ptr<char[]>> pinned_;
  std::map<const char*, size_t> pinned_bytes_;
  std::map<size_t, uint64_t> counted_;  // by each planned fault
  uint64_t launches_ = 0;
  // What defects remember.
  std::map<Defect, NowAndThen> chances_;
  DefectCounts counts_;
  std::set<const Kernel*> launched_;
  std::map<const Kernel*, std::vector<uint8_t>> last_arguments_;
  std::vector<uint8_t> last_copy_;
  std::map<std::string, uint64_t> deviations_;
  std::string report_;
};

}  // namespace nvidia_sim
