// What the doctor tries on a device: a list of checks that run one after the other in one process.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "device/device.h"
#include "verify/doctor.h"
#include "verify/rehearsal.h"
#include "verify/sized_ops.h"

namespace ferry::doctor {

struct Options {
  std::string device = "cpu";
  bool quick = false;        // the cases that discriminate most, small ones
  double soak_s = 0;         // 0: no soak
  std::string only;          // this subject alone; empty: all
  uint64_t seed = 1;         // of inputs
  double limit_s = 120;      // silence of a check for longer is a hang
  bool first_level = false;  // stop after the first level that has a finding
  std::string for_run = {};  // the run whose own sizes are tried, too; empty: none
  RunCalls run = {};         // what it does; the examining process fills it
};

/// Hears what an examination does, as it does it.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual void started(const std::string& /*device*/, const std::string& /*description*/) {}
  virtual void planned(size_t /*checks*/) {}
  virtual void began(size_t /*index*/, const CheckHead&) {}
  virtual void launched(const std::string& /*kernel*/) {}  // another kernel than the one before
  virtual void alive(double /*fraction done*/) {}          // of a long check
  virtual void measured(const Measurement&) {}
  virtual void noted(const std::string&) {}
  virtual void ended(const Outcome&) {}
  virtual void stopping(const std::string& /*signal*/) {}  // after the check that runs
};

/// A running check: where it puts what it finds.
struct Running {
  Device& device;
  const Options& options;
  Listener& listener;
  Outcome& outcome;
  const Clock& clock;

  template <typename... A>
  void found(const char* property, fmt::format_string<A...> format, A&&... args) {
    outcome.problems.push_back({property, fmt::format(format, std::forward<A>(args)...)});
  }
};

struct Check {
  CheckHead head;
  std::function<void(Running&)> run;
};

/// The kind of device that a name such as "ascend:1" asks for.
DeviceKind kind_of(std::string_view device);

/// Every check, from the most basic level up. A check makes its inputs when it runs.
std::vector<Check> make_checks(const Options& options);

/// What these options leave out, for the report.
std::vector<std::string> not_tried(const Options& options);

/// Runs one check. A DeviceError or a Bug inside is a finding; *device_lost tells whether the
/// device answers no more.
Outcome run_check(const Check& check,
                  Device& device,
                  const Options& options,
                  Listener& listener,
                  bool* device_lost);

/// What came of checks.
enum class Examined : uint8_t {
  kAll,
  kDeviceLost,  // it reported an error: a new process may go on with the next check
  kStopped,  // by a signal (base/signals.h), after the check that ran, or in it: there was more to try
};
/// Checks [from, end) on options.device, told to the listener. Errors: kInvalidInput, kUnavailable (no such device).
Result<Examined> examine(const Options& options, size_t from, Listener& listener);

/// Runs a computation with every call judged on the CPU; what is wrong becomes a problem that names
/// its kernel and begins with `where`.
void judge_run(Running& r,
               DType dtype,
               uint64_t seed,
               const std::string& where,
               const std::function<void(Maker&)>& run,
               const Choices& choices = {});
/// Runs a sized op with every call judged on the CPU; what is wrong becomes a problem that names its
/// kernel.
void run_sized(Running& r,
               const SizedOp& op,
               DType dtype,
               const Sizes& sizes,
               uint64_t seed,
               const Choices& choices = {});
/// The parts in which a run's call is tried: itself alone if that does not take too long.
std::vector<Sizes> run_parts(const RunCall& call, const Options& options);
/// A sized op at sizes that `random` chooses, from `at` on.
void run_any_sizes(Running& r, const Random& random, uint64_t at);

// Parts of the list, in their own files.
std::vector<Check> runtime_checks();
std::vector<Check> large_copy_checks(const Options& options);
std::vector<Check> first_checks();
std::vector<Check> ladder_checks(const Options& options);
std::vector<Check> run_checks(const Options& options);
std::vector<Check> value_checks(const Options& options);
std::vector<Check> state_checks(const Options& options);
std::vector<Check> load_checks();
std::vector<Check> measurements();
std::vector<Check> soak_checks(const Options& options);

}  // namespace ferry::doctor
