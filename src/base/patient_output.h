// Text for a reader who may stand still: a terminal stopped by Ctrl-S, a pager, ssh from a laptop
// that sleeps. Whoever writes here never waits for him.
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <string_view>

namespace ferry {

/// Owner: whoever must go on whatever becomes of his output. write() from any thread.
class PatientOutput {
 public:
  /// How much waits for the reader; what comes on top is left out, and he is told how much it was.
  static constexpr size_t kPendingBytesMax = size_t{64} << 10;

  /// Writes to the descriptor of `out`, which outlives this; nothing else may write to `out` while
  /// something is pending. Of a stream without one (memory) it is a plain writer. `reader_gone` is
  /// called once, when what is written to a pipe finds no reader (SIGPIPE must be ignored), by
  /// another thread, which may outlive this.
  explicit PatientOutput(std::FILE* out, std::function<void()> reader_gone = {});
  /// Gives what is pending a moment, then leaves it.
  ~PatientOutput();
  PatientOutput(const PatientOutput&) = delete;
  PatientOutput& operator=(const PatientOutput&) = delete;

  /// One or more whole lines, in order. What cannot be written (a full disk, a reader who left) is
  /// dropped: that is no failure of the work. False: left out.
  bool write(std::string_view text);
  /// The same for what the next such text replaces: left out, and not counted, while anything waits.
  bool write_passing(std::string_view text);

  /// Waits until nothing is pending, at most so long. False: something is.
  bool flush(double seconds_max);

 private:
  struct State;
  std::shared_ptr<State> state_;  // the writing thread may outlive this
};

}  // namespace ferry
