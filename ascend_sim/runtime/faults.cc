#include "runtime/faults.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include "runtime/settings.h"

namespace ascend_sim {
namespace {

struct Counters {
  std::vector<uint64_t> calls;           // one for each planned fault
  std::map<uint64_t, int> bad_launches;  // signature -> code
};

Counters& counters() {
  static Counters& all = *std::make_unique<Counters>().release();
  return all;
}

bool is_call(const std::string& name) {
  static const std::set<std::string> calls = {"Malloc", "Memcpy", "MemcpyAsync", "MemsetAsync"};
  return calls.contains(name);
}

/// A planned fault without a name belongs to allocations if it is "out of memory", else to
/// launches.
bool belongs_to(const FaultPlan& plan, const std::string& name, bool launch) {
  if (!plan.op.empty()) return plan.op == name && is_call(name) != launch;
  return plan.code == code::kOutOfMemory ? name == "Malloc" : launch;
}

/// With FERRY_ASCEND_SIM_FAULT_ONCE, only the first process to get there has the fault.
bool takes_place() {
  const std::string& path = settings().fault_once;
  if (path.empty()) return true;
  const int fd = open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
  if (fd < 0) {
    if (errno != EEXIST) violation("FERRY_ASCEND_SIM_FAULT_ONCE=" + path + " cannot be written");
    return false;
  }
  close(fd);
  return true;
}

std::optional<int> planned(const std::string& name, bool launch) {
  const std::vector<FaultPlan>& plans = settings().faults;
  counters().calls.resize(plans.size());
  std::optional<int> fault;
  for (size_t i = 0; i < plans.size(); ++i)
    if (belongs_to(plans[i], name, launch) && ++counters().calls[i] == plans[i].nth && !fault &&
        takes_place())
      fault = plans[i].code;
  return fault;
}

bool comes_back(int fault) {
  return fault == code::kAicoreTimeout || fault == code::kAicoreException ||
         fault == code::kVectorCoreTimeout || fault == code::kVectorCoreException;
}

bool is_memory_fault(int fault) {
  return fault == code::kHbmMultiBitEcc || fault == code::kDeviceMemError;
}

/// The 4 KiB around the first byte that the launch writes, or reads if it writes nothing.
Range page_of(const OpLaunch& launch) {
  constexpr uintptr_t kPage = 4096;
  const std::vector<Range>& touched = launch.writes.empty() ? launch.reads : launch.writes;
  return touched.empty() ? Range{} : Range{touched.front().begin / kPage * kPage, kPage};
}

bool touches(const OpLaunch& launch, const Range& bad) {
  const auto in = [&](const std::vector<Range>& ranges) {
    for (const Range& r : ranges)
      if (r.overlaps(bad)) return true;
    return false;
  };
  return in(launch.reads) || in(launch.writes);
}

}  // namespace

void reset_faults() { counters() = {}; }

std::optional<int> fault_of_call(const std::string& call) { return planned(call, false); }

bool is_hang(int fault) {
  return fault == code::kStreamSyncTimeout || fault == code::kEventSyncTimeout;
}

Outcome fault_of_launch(Device& device, const OpLaunch& launch) {
  for (const Range& bad : device.bad_memory)
    if (touches(launch, bad)) return {code::kHbmMultiBitEcc, "uncorrectable memory is read"};
  const auto again = counters().bad_launches.find(launch.signature);
  const std::optional<int> fault =
      again != counters().bad_launches.end() ? again->second : planned(launch.op, true);
  if (!fault) return {};
  if (comes_back(*fault)) counters().bad_launches[launch.signature] = *fault;
  if (is_memory_fault(*fault)) device.bad_memory.push_back(page_of(launch));
  return {*fault, "injected by FERRY_ASCEND_SIM_FAULT"};
}

}  // namespace ascend_sim
