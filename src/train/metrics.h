// What a run reports about itself: one record for each step and each held-out evaluation, kept as
// metrics.jsonl and as TensorBoard event files in the run's folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/named_file.h"
#include "base/result.h"

namespace ferry {

/// In a run's folder: lines of metrics.jsonl of steps that were undone (train/spike.h).
constexpr const char* kUndoneName = "metrics.undone.jsonl";

/// After update `step` (from 1). A number that is not finite is written as null and read back as
/// NaN.
struct StepRecord {
  int64_t step = 0;
  int64_t unix_ms = 0;
  int64_t tokens = 0;        // trained on so far
  double loss = 0;           // main, nats per token
  double bits_per_byte = 0;  // of the original text
  std::optional<double> mtp_loss, balance_loss;
  double gradient_norm = 0;  // before clipping
  std::optional<double> loss_z, gradient_norm_z;
  double lr = 0;
  double seconds = 0;  // that the step took
  double tokens_per_s = 0;
  std::optional<double> mfu;           // of the measured peak
  std::optional<std::string> skipped;  // why the update was refused
  // Of reinforcement learning (docs/reasoning.md); `loss` is then the policy's, and there are no bits a byte.
  std::optional<double> reward, right, answer_tokens, useful_groups, kl, clipped, masked, ratio_max;
  std::optional<double> groups_drawn;    // of all of which the figures above are
  std::optional<double> updates;         // that the step's minibatches made
  std::optional<double> empty_answers;   // the share with nothing behind the thought
  std::optional<double> program_failed;  // programs that judged and gave no verdict
  std::optional<double> logprobs_compared, logprob_mismatches;
  // Of these, where another device draws the answers (rl/mismatch.h); the last: of weights that travelled.
  std::optional<double> rollout_kl, rollout_ratio_max, rollout_capped, rollout_sent_bytes;
  // Of pairs of answers (docs/training.md), under TRL's names; `loss` is then theirs, and there are no bits a byte.
  std::optional<double> rewards_chosen, rewards_rejected, rewards_accuracies, rewards_margins,
      logps_chosen, logps_rejected;
  /// From the first step on that follows a loss spike that was gone back from (train/spike.h): how often that was, and
  /// how many tokens of the data were skipped.
  std::optional<double> rewinds, skipped_tokens;
  std::optional<double>
      anticipated;  // 1: its experts were those of older weights (train/step_routing.h)
};

/// Of the weights after `step`, on text that is not trained on.
struct HeldOutRecord {
  int64_t step = 0;
  int64_t unix_ms = 0;
  double loss = 0;
  double bits_per_byte = 0;
  /// Of reinforcement learning: the share of held-out tasks that are solved, between what it may be
  /// by chance; `loss` is then the share that is not, and there are no bits a byte.
  std::optional<double> score, score_low, score_high, answer_tokens, program_failed;
  /// Of pairs of answers, as above; of so many, the first of those held out.
  std::optional<double> pairs, pairs_held_out;
  std::optional<double> rewards_chosen, rewards_rejected, rewards_accuracies, rewards_margins,
      logps_chosen, logps_rejected;
};

/// Of which steps a run has made none any more, because it went back from a loss spike: of those that are later than
/// `after` and had fewer such returns before them.
struct UndoneSteps {
  int64_t rewinds = 0, after = 0;
};

struct Metrics {
  std::vector<StepRecord> steps;        // ascending
  std::vector<HeldOutRecord> held_out;  // ascending
};

/// One line, without the newline.
std::string to_json_line(const StepRecord& record);
std::string to_json_line(const HeldOutRecord& record);

/// What the first of these wrote. Errors: kCorrupt, naming `where`.
Result<StepRecord> step_record_of(std::string_view line, const std::string& where);

/// Reads metrics.jsonl strictly. A last line without its newline was cut off by a crash and is left out; a
/// file that is not there gives no records. Errors: kCorrupt with the line, kUnavailable.
Result<Metrics> read_metrics(const std::string& path);

/// The same for whoever looks again and again while the file grows: what was read is not read anew, unless the file
/// has become another one.
class MetricsFollower {
 public:
  explicit MetricsFollower(std::string path) : path_(std::move(path)) {}

  /// All that has been written by now. Errors: of read_metrics().
  Result<void> look();
  const Metrics& metrics() const { return metrics_; }

 private:
  std::string path_, last_line_;
  size_t at_ = 0, lines_ = 0;  // how far it was read
  Metrics metrics_;
};

/// Appends to FOLDER/metrics.jsonl and, if asked for, an event file in FOLDER/tensorboard. Each
/// record reaches the system before write() returns, so that a crash loses at most the one being
/// written. A record that a full disk does not take is kept, and tried again before the next: no run
/// ends because its log, once opened, cannot be written.
class MetricsLog {
 public:
  /// Opens for a run that goes on after `resumed_step` (0: from the start): records of later steps,
  /// of a part of the run that did not survive, are removed, those of `undone` moved to kUndoneName.
  /// A run that begins anew where there are records loses none: the file is set aside under a name of
  /// its own. Lines that are no records (a log may be edited, or harmed by a disk) are set aside in a
  /// file, too: they are no reason not to train. Both are in notes(). A new event file is begun, which
  /// tells TensorBoard to forget the later steps of older ones; what a full disk does not take of its
  /// beginning is kept as any record. Errors: kUnavailable, kExhausted.
  static Result<MetricsLog> open(const std::string& folder,
                                 int64_t resumed_step,
                                 bool tensorboard,
                                 const Clock& clock,
                                 const UndoneSteps& undone = {});

  /// What is to be told of it, if anything: that it could not be written (once until it can), or that all that was
  /// kept is written now.
  std::optional<std::string> write(const StepRecord& record);
  /// An evaluation that is made again, because a crash came between it and the checkpoint that was to have
  /// its figure, is told once: the first record of a step stands.
  std::optional<std::string> write(const HeldOutRecord& record);
  /// The run has gone back to this step: what was told of later ones, evaluations too, goes to kUndoneName, and
  /// TensorBoard is told to forget it. Where a full disk is in the way of that it is done with a later step's record,
  /// and until then nothing is written. Returns as write() does.
  std::optional<std::string> go_back(int64_t step, const Clock& clock);
  /// Tries what is kept a last time: that it is lost, if it cannot be written now either.
  std::optional<std::string> finish();

  /// Whether metrics.jsonl is still the file that is written. Errors: kUnavailable, kExhausted.
  Result<bool> in_place() const { return lines_.named.in_place(); }
  /// The folder was taken away under the run, and is made again: a new log there tells all that this one did.
  /// Records of another run, if there are any, are set aside (notes()). Errors: as open().
  Result<void> begin_anew(const std::string& folder, const Clock& clock);

  /// Everything so far, the part before the resume included: what the curve is drawn from.
  const Metrics& metrics() const { return metrics_; }
  bool tells_of_held_out(int64_t step) const;

  /// What open() or begin_anew() set aside, and where: to be told.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  /// A file, and what it has not taken yet.
  struct Output {
    FileWriter file;
    NamedFile named;
    std::string kept = {};
    Result<void> flush();
  };

  MetricsLog(std::string folder, Output lines, std::optional<Output> events)
      : folder_(std::move(folder)), lines_(std::move(lines)), events_(std::move(events)) {}
  void keep(const StepRecord& record);
  void keep(const HeldOutRecord& record);
  Result<void> forget_undone();
  Result<void> flush();
  std::optional<std::string> put();

  std::string folder_;
  Output lines_;
  std::optional<Output> events_;
  std::string undone_;          // lines that kUndoneName has not taken yet
  std::optional<int64_t> cut_;  // lines of later steps are still to leave metrics.jsonl
  bool behind_ = false;         // something is kept, and that was told
  Metrics metrics_;
  std::vector<std::string> notes_;
};

namespace tensorboard {

/// CRC-32C (Castagnoli), as TFRecord has it, masked: rotated right by 15 and a constant added.
uint32_t masked_crc32c(std::string_view bytes);

/// One record of an event file: length, its checksum, the bytes, their checksum; little-endian.
std::string framed(std::string_view bytes);

struct Scalar {
  std::string_view tag;
  float value;
};

/// Serialised tensorflow.Event messages.
std::string version_event(double wall_time_s);  // the first of a file
std::string session_start_event(double wall_time_s,
                                int64_t first_step);  // forget steps >= first_step
std::string scalars_event(double wall_time_s, int64_t step, const std::vector<Scalar>& scalars);

}  // namespace tensorboard
}  // namespace ferry
