// A program as a child of this process: it has a pipe through which it tells of itself, and does not
// outlive its owner, however that ends.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace ferry {

/// Owner: whoever follows it. One thread. Destroyed, it kills the child and waits for its end, but
/// not for ever: a driver may hold a process in the kernel after SIGKILL.
class ChildProcess {
 public:
  /// Where the child finds the end of the pipe that it writes to.
  static constexpr int kPipeFd = 3;
  /// Where it finds what it was handed.
  static constexpr int kHandedFd = 4;
  /// Where it finds the descriptor that it was lent.
  static constexpr int kLentFd = 5;
  /// Where it finds the memory that it writes what it is in to (base/flight_record.h).
  static constexpr int kFlightFd = 6;
  /// Where it finds the end of the pipe through which it is told things.
  static constexpr int kToldFd = 7;

  /// The status of a child whose program could not be executed, as a shell has it.
  static constexpr int kNotExecuted = 127;

  struct Start {
    std::string program;                     // the file to execute
    std::vector<std::string> arguments;      // its name first
    std::vector<int> ignored = {};           // signals that it ignores from the beginning
    std::optional<sigset_t> blocked = {};    // signals that it blocks; none given: as this thread
    bool nonblocking = false;                // both ends of the pipe
    std::optional<std::string> handed = {};  // a text that only the child can read, from memory
    int lent = -1;                           // a descriptor that the child has, too; -1: none
    int flight = -1;                         // likewise, of a flight::Memory
    bool told = false;                       // it has a pipe through which tell() reaches it
    bool heard = false;                      // its standard error is a pipe that complaints() reads
  };
  /// A program that cannot be executed says so and ends with kNotExecuted; one whose parent died
  /// before it ran, with 3. SIGPIPE is always ignored. Errors: kExhausted (this process may have no further
  /// descriptor), kUnavailable (no process, no memory just now).
  static Result<ChildProcess> start(const Start& start);

  ChildProcess(ChildProcess&&) noexcept;
  ChildProcess& operator=(ChildProcess&&) noexcept;
  ~ChildProcess();

  /// -1 once its end is known.
  pid_t pid() const { return pid_; }
  /// The end of the pipe to read; -1 once it was closed.
  int pipe() const { return pipe_; }
  void close_pipe();

  /// The end to read, without waiting, of what it writes to its standard error; -1: it is this process's.
  int complaints() const { return complaints_; }

  /// So that the child can read it at kToldFd: it is not waited for. A text of at most PIPE_BUF bytes arrives whole.
  /// False: it has not read for long, or has ended (SIGPIPE must be ignored then).
  bool tell(const std::string& text) const;
  /// The child reads the end of what it is told.
  void tell_no_more();

  /// Nothing once its end is known: its number may be somebody else's then.
  void signal(int number) const;
  /// The status as of waitpid, once: nothing while it runs, or when its end was told before.
  std::optional<int> ended();
  /// The same, when it has ended; 0 if that was told before.
  int wait();

  /// Whether somebody has stopped it (SIGSTOP, a debugger), so that it does nothing.
  bool stopped() const;

  /// In the child: whether kPipeFd is such a pipe; then nothing that the child starts inherits it.
  static bool claim_pipe();
  /// In the child: what Start::handed was. Once. Errors: kInvalidInput (nothing was handed).
  static Result<std::string> take_handed();

 private:
  ChildProcess(pid_t pid, int pipe, int tells, int complaints)
      : pid_(pid), pipe_(pipe), tells_(tells), complaints_(complaints) {}
  pid_t pid_ = -1;
  int pipe_ = -1;
  int tells_ = -1;
  int complaints_ = -1;
};

}  // namespace ferry
