// What a person sees while a run trains: one live line on a terminal, a line every so often
// elsewhere.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "train/metrics.h"

namespace ferry {

struct ProgressSettings {
  int64_t steps = 1;      // of the whole run
  int64_t every = 10;     // off a terminal: a line every so many steps, the first and the last too
  bool terminal = false;  // the line is rewritten in place
  bool colour = false;
};

/// "  412/1000 41%  loss 3.214 (+0.3σ)  1.61 bits/byte  |g| 0.83 (-1.1σ)  lr 9.8e-04  12.3 k tok/s
/// MFU 41%  ETA 4 min 05 s". Pure. seconds_per_step: for the ETA; 0 leaves it out.
std::string progress_line(const StepRecord& record,
                          double seconds_per_step,
                          const ProgressSettings& settings);
std::string held_out_line(const HeldOutRecord& record,
                          const HeldOutRecord* best_before,
                          const ProgressSettings& settings);

/// Writes the lines. The ETA is from the median of the last steps, so that an evaluation or a
/// checkpoint does not shake it. Owner: the training loop.
class Progress {
 public:
  Progress(const ProgressSettings& settings, std::FILE* out) : settings_(settings), out_(out) {}
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const StepRecord& record);
  void held_out(const HeldOutRecord& record);
  /// A line that stays ("saved checkpoint ..."), above the live one.
  void note(const std::string& text);
  /// Ends the live line, so that what follows begins on its own.
  void finish();

  /// Whether `out` is a terminal; and whether it should be coloured, given log.colour.
  static bool is_terminal(std::FILE* out);
  static bool wants_colour(std::FILE* out, const std::string& colour);

 private:
  /// That it cannot be written is no failure: a pipe's reader leaves, a terminal goes away, and the
  /// run, whose numbers are in its metrics, goes on.
  void put(const std::string& text);

  ProgressSettings settings_;
  std::FILE* out_;
  std::string live_;             // the line that is on the screen now
  std::vector<double> seconds_;  // of the last steps
  std::optional<HeldOutRecord> best_;
  bool first_ = true;
};

}  // namespace ferry
