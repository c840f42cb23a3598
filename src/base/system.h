// This machine, this process and its user: memory that was used, and where notes are kept.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace ferry {

/// Most memory this process ever had resident (VmHWM), and what it has now (VmRSS).
uint64_t memory_peak_bytes();
uint64_t memory_resident_bytes();
/// What of it is no file (RssAnon): which the system cannot drop and read again.
uint64_t memory_private_bytes();

/// The largest file that this process may write (ulimit -f); the largest number where there is no
/// limit.
uint64_t file_bytes_max();

/// HOME; "": not set.
std::string home_folder();

/// Where a program keeps notes of its own (XDG base directories): $XDG_STATE_HOME, or
/// ~/.local/state. Empty: the user has no home.
std::string state_folder();

/// Name of this machine.
std::string host_name();

/// When a process that lives began, in ticks since the machine did: with its number it names one process,
/// where numbers are used again. None: it is gone, or has ended and nobody has asked how (a zombie).
std::optional<int64_t> process_began(int64_t pid);

/// What the system says of a process that lives.
struct ProcessLook {
  /// Of its first thread, as proc(5) has it: R runs or could, S sleeps, D waits for a disk or a driver, T a
  /// signal has stopped it, t a debugger, Z it has ended.
  char state = '?';
  bool runnable = false;   // some thread of it is R or D
  double processor_s = 0;  // that all its threads have used
  double first_s = 0;      // that its first thread has
};
/// None: it is gone, or hidden from this user.
std::optional<ProcessLook> look_at_process(int64_t pid);

/// What numbers of processes mean: "pid:[4026531836]", and which start of the machine. Two that differ do not
/// see each other's processes. Empty: not known.
std::string process_namespace();

/// "Intel(R) Xeon(R) Processor" or the like, for reports.
std::string processor_name();

/// What runs this process in place of a processor of its kind ("qemu-user"), as FERRY_EMULATOR says;
/// empty: nothing does.
std::string emulator_name();

}  // namespace ferry
