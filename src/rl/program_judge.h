// Answers judged by a command of the user's, in a sandbox (bubblewrap): it sees the system's programs, a
// folder of the user's and nothing else, has no network, can write nowhere but in /tmp and a little shared memory,
// and what it may take of time, memory, processes and files is limited. Whatever it does, its answer is worth what
// it says, or nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace ferry::rl {

struct ProgramJudgeOptions {
  std::string command;  // of a shell, which runs it in an empty folder that it may write to
  std::string folder;   // is there as /judge, read-only; empty: there is none
  double seconds = 10;  // by the clock, and of each process's processor time
  int64_t memory_mb =
      512;  // address space of each process; half as much for files, and 16 MiB in /dev/shm
  int64_t processes = 32;
  int64_t at_once = 2;  // programs
};

/// A program reads one JSON object from its standard input and is to end with status 0, the last line of
/// its output a number from 0 to 1. Anything else is worth 0: another status, no number, silence beyond
/// the time, more than 64 KiB of output, a process too many.
class ProgramJudge {
 public:
  /// Tries the sandbox with a program that does nothing. Errors: kUnavailable: there is no bubblewrap,
  /// or it may not do here what it must; kInvalidInput: the folder.
  static Result<ProgramJudge> create(const ProgramJudgeOptions& options);

  /// What each input is worth, in their order. go_on() is asked all the time; false: give up (kTimeout).
  /// Errors: kExhausted: a process could not be started.
  Result<std::vector<double>> verdicts(std::span<const std::string> inputs,
                                       const std::function<bool()>& go_on) const;

  /// What the sandbox cannot do on this machine, for whoever runs programs in it; empty: nothing.
  std::string weakness() const;

 private:
  explicit ProgramJudge(const ProgramJudgeOptions& options) : options_(options) {}
  std::vector<std::string> arguments() const;
  ProgramJudgeOptions options_;
  bool no_more_namespaces_ = true;  // a program can make none of users inside its own
};

}  // namespace ferry::rl
