// One process's part in a training run, from its first step, or its last checkpoint, to the end: what loop.h's train()
// carries out. How it begins is in training_run_begin.cc, how it goes on when another rank is lost in
// training_run_recover.cc, how it goes back from a loss spike in training_run_rewind.cc, its steps, evaluations and
// checkpoints in loop.cc.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/patient_output.h"
#include "base/terminal.h"
#include "data/loader.h"
#include "models/trainable_lm.h"
#include "train/agreement.h"
#include "train/beats.h"
#include "train/carried.h"
#include "train/corruption_guard.h"
#include "train/estimate.h"
#include "train/held_out.h"
#include "train/loop.h"
#include "train/metrics.h"
#include "train/preferences.h"
#include "train/progress.h"
#include "train/recovery_plan.h"
#include "train/refusals.h"
#include "train/run_data.h"
#include "train/run_folder.h"
#include "train/run_state.h"
#include "train/shared_step.h"
#include "train/train_step.h"

namespace ferry {

/// Ranks wait for each other as long as it takes, be it a save or an evaluation: the links of one that died close, and
/// hangs are found by who started them, who knows what each is at.
constexpr double kForever = std::numeric_limits<double>::infinity();

/// What a figure is that there is none of.
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

inline HeldOutRecord record_of(const HeldOutLoss& loss) {
  return {.loss = loss.nats_per_token, .bits_per_byte = loss.bits_per_byte};
}

/// One call of train(). Its members are what the parts share; none of them is handed out.
class TrainingRun {
 public:
  TrainingRun(const Settings& settings, const TrainOptions& options)
      : settings_(settings),
        options_(options),
        beats_(options.beat, system_clock()),
        output_(options.out, tells_that_reader_left(settings.checkpoint.dir)) {}

  Result<TrainResult> go() {
    if (ranks() != nullptr) ranks()->when_waiting([this](int peer) { beats_.waiting_for(peer); });
    Result<void> done;
    try {
      done = options_.takes_place ? take_place() : begin();
      if (done && !stopping()) done = steps();
    } catch (const Spoiled&) {
      ranks()->leave();  // the others need not wait until that is told
      throw;
    }
    progress_.reset();
    // Nothing is left to lose: whoever reads may take his time. Signs of life come often enough that a busy
    // machine is not taken for a hang.
    while (!output_.flush(0.2)) still_alive();
    TRY(done);
    return result();
  }

 private:
  Result<void> enter();
  Result<void> begin();
  Result<void> prepare();
  void make_step();
  Result<void> open_metrics();
  void tell(const std::optional<std::string>& news);
  Result<void> read_texts();
  Result<void> read_pairs();
  Result<void> take_reference();
  Result<void> prepare_together();
  Result<void> together(Result<void> mine, const Identity& identity);
  Result<void> announce();
  std::string data_line() const;
  void share_figures();
  Result<void> steps();
  Result<void> go_on();
  Result<void> close_step();
  void begin_step();
  Result<void> one_step();
  void decide(const StepGradients& g);
  Result<void> end_step();
  void prepare_texts();
  std::vector<data::Batch> batches_from(int64_t place) const;
  StepGradients pairs_step(StepRecord& record);
  void count(const StepGradients& g, StepRecord& record);
  std::optional<std::string> refusal(const StepGradients& g, const StepRecord& record) const;
  Result<void> evaluate();
  std::optional<HeldOutRecord> evaluate_texts();
  std::optional<HeldOutRecord> evaluate_pairs();
  Result<void> keep(HeldOutRecord record);
  bool evaluates_at(int64_t step) const;
  /// The last one waits until the disk has room for it.
  Result<void> save(bool last);
  bool is_unsaved();
  void leave_together();
  // From a loss spike.
  Result<void> go_back_if_due();
  int64_t place_in_data() const;
  Result<std::optional<int64_t>> agreed_place();
  std::vector<int64_t> all_say(int64_t mine, size_t round);
  Result<void> look_at_place(const std::string& path, int64_t step);
  Result<void> go_back(int64_t to);
  Result<void> compare_what_was_read();
  void flip_restored();
  void name_undone(int64_t after);
  void set_undone_aside();
  Result<void> go_back_with_others(std::vector<RankWord>& words);
  // With the successor of a rank that is gone.
  Result<void> take_place();
  Result<void> recover(comm::LinkError why);
  comm::LinkError no_other_meeting(const comm::LinkError& why, const Status& met) const;
  Result<void> settle();
  RankWord word() const;
  void take_model(const RecoveryPlan& plan);
  void give_untrained(const RecoveryPlan& plan);
  void take_carried(const RecoveryPlan& plan);
  Result<void> adopt(const RecoveryPlan& plan, const std::vector<RankWord>& words);
  void agree_again();
  /// What it does first takes as long as it may take; who takes a place has begun.
  bool starts() const { return own_steps_ == 0 && !options_.takes_place; }
  bool fresh() const { return stage_ == Standing::Stage::kNothing; }
  TrainResult result() const;
  const ModelTexts* texts() const { return texts_ ? &*texts_ : nullptr; }
  comm::Rejoining* ranks() const { return options_.ranks; }
  RankPlace place() const {
    return ranks() != nullptr ? RankPlace{ranks()->rank(), ranks()->ranks()} : RankPlace{};
  }
  /// The one that says, evaluates and writes.
  bool first() const { return place().rank == 0; }
  /// This process was told to.
  bool told_to_stop() const { return options_.stop != nullptr && options_.stop->load(); }
  /// All ranks stop at the same place: as they have agreed.
  bool stopping() const { return ranks() != nullptr ? stop_agreed_ : told_to_stop(); }
  bool stop_here();
  bool of_pairs() const { return !settings_.dpo.pairs.empty(); }
  int64_t micro_batches() const {
    if (of_pairs()) return 0;  // as many as their lengths make
    return settings_.train.tokens_per_step / settings_.train.micro_batch_tokens;
  }
  void say(const std::string& text) { output_.write(text + "\n"); }

  const Settings& settings_;
  const TrainOptions& options_;
  const Clock& clock_ = system_clock();
  Beats beats_;
  PatientOutput output_;  // a terminal that stands still must not stop the run, or pass for a hang
  Device* device_ = nullptr;
  std::optional<RunFolder> folder_;
  std::shared_ptr<const data::Dataset> dataset_;
  RunData data_;  // the dataset, as the run's files know it
  std::optional<data::Loader> loader_;
  std::optional<data::HeldOut> held_out_;
  std::optional<Preferences> preferences_;  // in place of these three
  std::unique_ptr<models::TrainableLm> model_;
  std::optional<ModelTexts> texts_;  // of the directory that the run goes on from
  std::unique_ptr<TrainedAdapter> adapter_;
  std::optional<Optimizer> optimizer_;
  std::optional<SharedStep> shared_;      // with other ranks
  std::optional<CorruptionGuard> guard_;  // of these, if it is wanted
  std::optional<TrainStep> step_;
  std::optional<MetricsLog> metrics_;
  std::optional<Progress> progress_;
  Schedule schedule_;
  RunState state_;
  Figures figures_;
  Estimate estimate_;
  // Of the step under way, or of the last one.
  Standing::Stage stage_ = Standing::Stage::kBetween;
  double step_began_s_ = 0;
  int64_t tokens_after_ = 0;       // RunState::tokens
  Spike spike_after_;              // RunState::spike
  StepRouting anticipated_after_;  // RunState::anticipated
  StepGradients gradients_;
  StepRecord record_;
  std::optional<HeldOutLoss> held_out_loss_;
  std::optional<PreferenceFigures> held_out_pairs_;
  int64_t saved_step_ = -1;
  bool saved_figure_ = false;  // its evaluation is in that checkpoint
  int64_t own_steps_ = 0;      // of this process
  int64_t own_tokens_ = 0;
  double own_seconds_ = 0;
  double own_flops_ = 0;
  std::optional<double> last_loss_;
  Refusals refusals_;
  // Of going back from a loss spike; a process that follows finds it out for itself.
  std::map<int64_t, Status> damaged_;  // checkpoints that it would have been to
  int64_t told_of_no_place_ = 0;       // Spike::since
  std::set<int64_t> undone_;           // whose checkpoints are not set aside yet
  int64_t agreements_ = 0;
  bool stop_agreed_ = false;
};

}  // namespace ferry
