// Answers judged by a command of the user's, in a sandbox (bubblewrap): it sees the system's programs, a
// folder of the user's and nothing else, has no network, can write nowhere but in /tmp and a little shared memory,
// and what it may take of time, memory, processes and files is limited. Whatever it does, its answer is worth what
// it says, or nothing.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
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

/// How a program ended that judged an answer.
enum class ProgramEnd {
  kVerdict,   // as it is to
  kNoNumber,  // the last line of its output is none from 0 to 1
  kStatus,    // not with 0
  kSignal,    // by one, which its shell told as 128 and more, or as its own end
  kTime,      // it was killed when its time was over
  kTooMuch,   // likewise, for its output
};
constexpr size_t kProgramEnds = 6;

struct ProgramVerdict {
  double worth = 0;  // 0 unless `end` is kVerdict
  ProgramEnd end = ProgramEnd::kVerdict;
  int number = 0;  // the status, or the signal's
  /// Otherwise the last of what it wrote to its standard error, or, where that is nothing and its output no number,
  /// of its output. Bytes of anybody's.
  std::string said;
};

/// Of many answers: how often programs ended otherwise than they are to. An answer may be why (a program that runs
/// it ends as the answer does), and so may the program be.
class ProgramTally {
 public:
  void add(const ProgramVerdict& verdict);
  void add(const ProgramTally& other);
  int64_t judged() const { return judged_; }
  int64_t failed() const;
  /// "3 of 16 programs that judged did not give a number from 0 to 1, and their answers are worth 0: ...", with how
  /// many ended how, and what the first of them said, fit for a message. Check: failed() > 0.
  std::string told() const;
  /// Whether it is the command that is wrong, and no answer: there are some verdicts, and not one is a number,
  /// they all ended in one way, which is not by time, and said the same.
  bool is_broken() const;

 private:
  int64_t judged_ = 0;
  std::array<int64_t, kProgramEnds> ends_{};
  std::optional<ProgramVerdict> first_;  // that failed
  bool alike_ = true;                    // those that failed
};

/// A program reads one JSON object from its standard input and is to end with status 0, the last line of
/// its output a number from 0 to 1. Anything else is worth 0: another status, no number, silence beyond
/// the time, more than 64 KiB of output, a process too many.
class ProgramJudge {
 public:
  /// Tries the sandbox with a program that does nothing. Errors: kUnavailable: there is no bubblewrap,
  /// or it may not do here what it must; kInvalidInput: the folder.
  static Result<ProgramJudge> create(const ProgramJudgeOptions& options);

  /// On each input, in their order. go_on() is asked all the time; false: give up (kTimeout). Who ended within its
  /// time is judged by what it said, however late that is looked at; and where nobody looked for more than a second
  /// (the run was stopped, the machine busy), that time is not the programs'.
  /// Errors: kExhausted: a process could not be started.
  Result<std::vector<ProgramVerdict>> verdicts(std::span<const std::string> inputs,
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
