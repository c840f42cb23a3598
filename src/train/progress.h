// What a person sees while a run trains: one live line on a terminal, a line every so often
// elsewhere.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>

#include "base/terminal.h"
#include "train/metrics.h"

namespace ferry {

struct ProgressSettings {
  int64_t steps = 1;   // of the whole run
  int64_t every = 10;  // off a terminal: a line every so many steps, the first and the last too
  bool colour = false;
  int columns = 0;  // that a line may take; 0: as many as it likes
};

/// "  412/1000 41%  loss 3.214 (+0.3σ)  1.61 bits/byte  |g| 0.83 (-1.1σ)  lr 9.8e-04  12.3 k tok/s
/// MFU 41%  ETA 4 min 05 s". Where columns are few, what matters least is left out. Pure.
/// seconds_per_step: for the ETA; 0 leaves it out.
std::string progress_line(const StepRecord& record,
                          double seconds_per_step,
                          const ProgressSettings& settings);
/// The best evaluation of an earlier step, those before a resume or a restart included; nullptr: there is none.
const HeldOutRecord* best_before(int64_t step, const Metrics& metrics);
std::string held_out_line(const HeldOutRecord& record,
                          const HeldOutRecord* best_before,
                          const ProgressSettings& settings);

/// For the output of a run in this folder: says on standard error that nobody reads it any more, that the run goes on,
/// and where to look.
std::function<void()> tells_that_reader_left(const std::string& folder);

/// Writes the lines. The ETA is from the median of the last steps, so that an evaluation or a
/// checkpoint does not shake it. Owner: the training loop.
class Progress {
 public:
  /// colour: log.colour, "auto": where the terminal has them. `out` outlives this.
  Progress(const ProgressSettings& settings,
           PatientOutput& out,
           Terminal terminal,
           const std::string& colour);
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const StepRecord& record);
  /// so_far: with or without the record itself; nullptr: a rank that keeps none.
  void held_out(const HeldOutRecord& record, const Metrics* so_far);
  /// A line that stays ("saved checkpoint ..."), above the live one.
  void note(const std::string& text);
  /// Ends the live line, so that what follows begins on its own.
  void finish() { line_.keep(); }

 private:
  ProgressSettings settings_;
  LiveLine line_;
  std::vector<double> seconds_;  // of the last steps
  bool first_ = true;
};

}  // namespace ferry
