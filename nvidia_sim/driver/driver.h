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
#include "memory/device_memory.h"

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
  bool hangs = false;
};

struct CUevent_ {
  CUcontext_* context = nullptr;
  CUstream_* stream = nullptr;  // where it was recorded last
  uint64_t recorded = 0, passed = 0;
};

struct CUfunction_ {
  const nvidia_sim::Kernel* kernel = nullptr;
};

struct CUmodule_ {
  CUcontext_* context = nullptr;
  nvidia_sim::Program program;
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
  CUmodule load_module(CUcontext context, Program program);
  void* allocate_host(size_t bytes);

  bool known(const CUcontext_* c) const;
  bool known(const CUstream_* s) const { return streams_.contains(s); }
  bool known(const CUevent_* e) const { return events_.contains(e); }
  bool known(const CUmodule_* m) const { return modules_.contains(m); }
  bool known(const CUfunction_* f) const;

  /// Carries out what waits in the stream.
  void destroy(CUstream stream);
  void destroy(CUevent event) { events_.erase(event); }
  void unload(CUmodule module);
  /// Carries out what waits in all streams, which may still use the memory. False: not ours.
  bool free_host(void* memory);
  /// Whether the bytes lie in memory that the device reads by itself.
  bool is_pinned(const void* memory, size_t bytes) const;

  /// Puts work behind what waits in the stream; if that is much, the first is carried out.
  void enqueue(CUstream stream, std::function<bool()> work);
  /// Carries out the first of what waits; false if nothing could be.
  bool step(CUstream stream);
  void drain(CUstream stream);
  void drain_all(CUcontext context);

  /// The code that a launch of the kernel, or an allocation, is planned to fail with; -1: hang;
  /// 0: none.
  int planned_fault(const std::string& kernel);
  int planned_fault_of_allocation();

  /// A number for the order of things, new for each launch.
  uint64_t next_seed() { return settings_.seed * 0x9E3779B97F4A7C15u + ++launches_; }

  void report(const std::string& text);
  const std::string& last_report() const { return report_; }

 private:
  bool takes_place() const;

  Settings settings_;
  std::map<int, std::unique_ptr<CUcontext_>> contexts_;
  std::map<const CUstream_*, std::unique_ptr<CUstream_>> streams_;
  std::map<const CUevent_*, std::unique_ptr<CUevent_>> events_;
  std::map<const CUmodule_*, std::unique_ptr<CUmodule_>> modules_;
  std::map<const char*, std::unique_ptr<char[]>> pinned_;
  std::map<const char*, size_t> pinned_bytes_;
  std::map<size_t, uint64_t> counted_;  // by each planned fault
  uint64_t launches_ = 0;
  std::string report_;
};

}  // namespace nvidia_sim
