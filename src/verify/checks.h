// What the doctor tries on a device: a list of checks that run one after the other in one process.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "device/device.h"
#include "verify/doctor.h"

namespace ferry::doctor {

struct Options {
  std::string device = "cpu";
  bool quick = false;        // the cases that discriminate most, small ones
  double soak_s = 0;         // 0: no soak
  std::string only;          // this subject alone; empty: all
  uint64_t seed = 1;         // of inputs
  double limit_s = 120;      // silence of a check for longer is a hang
  bool first_level = false;  // stop after the first level that has a finding
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

/// Every check, from the most basic level up. A check makes its inputs when it runs.
std::vector<Check> make_checks(const Options& options);

/// Runs one check. A DeviceError or a Bug inside is a finding; *device_lost tells whether the
/// device answers no more.
Outcome run_check(const Check& check,
                  Device& device,
                  const Options& options,
                  Listener& listener,
                  bool* device_lost);

/// Checks [from, end) on options.device, told to the listener. True if all ran; false if the device
/// reported an error: a new process may go on with the next check. Errors: kInvalidInput,
/// kUnavailable (no such device).
Result<bool> examine(const Options& options, size_t from, Listener& listener);

// Parts of the list, in their own files.
std::vector<Check> runtime_checks();
std::vector<Check> load_checks();
std::vector<Check> measurements();
std::vector<Check> soak_checks(const Options& options);

}  // namespace ferry::doctor
