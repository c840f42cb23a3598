#include "train/loop.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/alive.h"
#include "base/fault.h"
#include "base/math.h"
#include "train/run_save.h"
#include "train/spoiled_step.h"
#include "train/training_run.h"

namespace ferry {

using supervisor::Work;

namespace {

/// Of a step, or of what is held out.
template <typename Record>
void set_figures(Record& record, const PreferenceFigures& f) {
  record.rewards_chosen = f.rewards_chosen;
  record.rewards_rejected = f.rewards_rejected;
  record.rewards_accuracies = f.rewards_accuracies;
  record.rewards_margins = f.rewards_margins;
  record.logps_chosen = f.logps_chosen;
  record.logps_rejected = f.logps_rejected;
}

}  // namespace

Result<void> TrainingRun::steps() {
  beats_.step_done(state_.step, state_.rewinds.count);
  if (state_.step >= options_.replay_to && options_.replay_to > 0) device_->set_replay(false);
  for (;;) {
    try {
      return go_on();
    } catch (const comm::LinkError& e) {
      TRY(recover(e));
    }
  }
}

Result<void> TrainingRun::go_on() {
  for (;;) {
    TRY(go_back_if_due());
    TRY(close_step());
    if (state_.step >= settings_.train.steps || stop_here()) break;
    TRY(one_step());
    if (options_.replay_to == state_.step) device_->set_replay(false);
  }
  if (stopping() && is_unsaved()) TRY(save(true));
  if (metrics_) tell(metrics_->finish());
  if (guard_ && own_seconds_ > 0)
    progress_->note(fmt::format(
        "checks     for silent corruption: hashes {:.2f} %, audits {:.2f} % of the time "
        "of steps",
        100 * guard_->spent().hashing_s / own_seconds_,
        100 * guard_->spent().auditing_s / own_seconds_));
  leave_together();
  return stopping() ? Result<void>() : refusals_.end(state_.step);
}

/// What is due after the last step, as far as it has not been done: a stop cuts an evaluation short and saves what
/// there is, and a rank may be lost at any time. A checkpoint without its figure could never be kept as the best one,
/// and gets it when the run goes on.
Result<void> TrainingRun::close_step() {
  const int64_t c = settings_.checkpoint.every, b = settings_.train.rewind_every;
  const bool saved = saved_step_ == state_.step;
  const bool save_now =
      !saved && (state_.step == settings_.train.steps || (c > 0 && state_.step % c == 0) ||
                 (b > 0 && state_.step % b == 0));
  if (state_.step == 0) return {};
  const bool evaluate_now = evaluates_at(state_.step) && !state_.held_out_loss;
  if (evaluate_now) TRY(evaluate());
  // Also one that a rank has made up for, and another one, who is gone, was to save.
  return save_now || (saved && !saved_figure_ && state_.held_out_loss)
             ? save(!saved && state_.step == settings_.train.steps)
             : Result<void>();
}

/// Rank 0 alone knows whether there was room for the checkpoint that was due.
bool TrainingRun::is_unsaved() {
  const bool mine = first() && saved_step_ != state_.step;
  if (ranks() == nullptr) return mine;
  return comm::any_of(*ranks(), {comm::Purpose::kStop, state_.step, 1}, mine, kForever);
}

/// Rank 0 writes what the others have given it: they stay until it is whole.
void TrainingRun::leave_together() {
  if (ranks() == nullptr) return;
  static_cast<void>(fault_point("step.end"));
  const comm::Tag tag{comm::Purpose::kEnd, state_.step};
  std::vector<uint8_t> byte = {1};
  if (!first()) {
    ranks()->receive(0, tag, comm::bytes_of(byte));
    return ranks()->finish(kForever);
  }
  for (int r = 1; r < ranks()->ranks(); ++r) ranks()->send(r, tag, comm::bytes_of(byte));
  try {
    ranks()->finish(kForever);
  } catch (const comm::LinkError&) {
    // Who is gone by now is not missed.
  }
  static_cast<void>(fault_point("step.left"));
}

bool TrainingRun::evaluates_at(int64_t step) const {
  const int64_t e = settings_.train.evaluate_every;
  return step == settings_.train.steps || (e > 0 && step % e == 0);
}

void TrainingRun::begin_step() {
  beats_.begin(starts() ? Work::kFirstStep : Work::kTraining, micro_batches());
}

/// The next step, whose tokens are taken from the stream.
void TrainingRun::prepare_texts() {
  std::vector<data::Batch> batches = batches_from(state_.tokens + state_.rewinds.skipped_tokens);
  tokens_after_ = batches.back().end - state_.rewinds.skipped_tokens;
  for (data::Batch& b : batches) spoil_labels(b, data_.vocab_size);
  // What a checkpoint has of it may be of other settings: of steps of another size, or none are to be given any.
  const bool given = anticipates(state_.rewinds, state_.step + 1, settings_.train) &&
                     !state_.anticipated.empty() &&
                     fits(state_.anticipated,
                          batches,
                          step_->routed_layers(state_.step),
                          model_->routed_layers().top_k);
  if (given) record_.anticipated = 1;
  step_->prepare(
      state_.step,
      batches,
      [this](int64_t done) { beats_.advance(done); },
      given ? state_.anticipated : StepRouting());
}

/// Those of a step that begins at this place of the stream.
std::vector<data::Batch> TrainingRun::batches_from(int64_t place) const {
  std::vector<data::Batch> batches;
  const int64_t size = settings_.train.micro_batch_tokens / settings_.data.sequence_length;
  for (int64_t m = 0; m < micro_batches(); ++m) {
    batches.push_back(loader_->sequences(place, size));
    place = batches.back().end;
  }
  return batches;
}

/// The same of pairs.
StepGradients TrainingRun::pairs_step(StepRecord& record) {
  int64_t passes = 0;
  const PreferenceStep s =
      preferences_->gradients(*model_, *step_, state_.position, [&] { beats_.advance(++passes); });
  state_.position += settings_.dpo.pairs_per_step;
  tokens_after_ = state_.tokens + s.of.tokens;
  set_figures(record, s.figures);
  record.logprobs_compared = static_cast<double>(s.compared);
  record.logprob_mismatches = static_cast<double>(s.mismatches);
  return s.of;
}

Result<void> TrainingRun::one_step() {
  step_began_s_ = clock_.monotonic_s();
  begin_step();
  std::optional<OpsAlive> alive;  // a first micro-batch may take longer than any patience
  if (own_steps_ == 0) alive.emplace();
  record_ = {};
  if (preferences_) {
    decide(pairs_step(record_));
  } else {
    std::optional<StepGradients> g;
    while (!g) {
      stage_ = Standing::Stage::kBetween;
      prepare_texts();
      stage_ = Standing::Stage::kPrepared;
      g = step_->commit();
    }
    decide(*g);
  }
  if (!record_.skipped) step_->spread();
  alive.reset();
  return end_step();
}

/// Every rank is known to have prepared the step: what is held here is updated, or the update is refused.
void TrainingRun::decide(const StepGradients& g) {
  const OpsAlive alive;  // no micro-batch is done while the weights change
  gradients_ = g;
  spoil_loss(gradients_);
  const double line = spike_line(state_.loss_z, settings_.train);
  record_.loss = gradients_.loss;
  record_.gradient_norm = gradients_.norm;
  record_.loss_z = state_.loss_z.add(gradients_.loss);
  record_.gradient_norm_z = state_.norm_z.add(gradients_.norm);
  record_.lr = learning_rate_at(schedule_, state_.step);
  record_.skipped = refusal(gradients_, record_);
  spike_after_ = after_step(state_.spike,
                            state_.step + 1,
                            place_in_data(),
                            record_.skipped.has_value(),
                            gradients_.loss,
                            line);
  anticipated_after_.clear();
  if (anticipates(state_.rewinds, state_.step + 2, settings_.train))
    anticipated_after_ = step_->routing(
        state_.step + 1, batches_from(tokens_after_ + state_.rewinds.skipped_tokens));
  if (!record_.skipped) step_->apply(record_.lr);
  stage_ = Standing::Stage::kCommitted;
}

/// All weights are here.
Result<void> TrainingRun::end_step() {
  if (!record_.skipped) {
    const OpsAlive alive;
    step_->settle();
  }
  if (spoil_weights(*model_) && guard_) guard_->wrote();
  device_->stream().synchronize();
  count(gradients_, record_);
  stage_ = Standing::Stage::kBetween;
  if (metrics_) tell(metrics_->write(record_));
  progress_->step(record_);
  if (record_.logprob_mismatches.value_or(0) > 0)
    progress_->note(
        fmt::format("warning    step {}: {} of {} log-probabilities of answers are not "
                    "those that the gradient is of",
                    record_.step,
                    *record_.logprob_mismatches,
                    *record_.logprobs_compared));
  if (own_steps_ == 1) beats_.begin(Work::kTraining, micro_batches());
  beats_.step_done(state_.step, state_.rewinds.count);
  return refusals_.step(state_.step, record_.skipped, settings_.checkpoint.dir, *progress_);
}

/// The step is done: the run's state, and what is reported of it.
void TrainingRun::count(const StepGradients& g, StepRecord& record) {
  ++state_.step;
  state_.tokens = tokens_after_;
  state_.spike = spike_after_;
  state_.anticipated = std::exchange(anticipated_after_, {});
  state_.refused += record.skipped.has_value();
  record.step = state_.step;
  record.unix_ms = clock_.unix_ms();
  record.tokens = state_.tokens;
  if (state_.rewinds.count > 0) {
    record.rewinds = static_cast<double>(state_.rewinds.count);
    record.skipped_tokens = static_cast<double>(state_.rewinds.skipped_tokens);
  }
  record.bits_per_byte = preferences_
                             ? kNone
                             : g.loss * static_cast<double>(g.labels) / math::kLn2 /
                                   static_cast<double>(std::max<int64_t>(1, g.label_bytes));
  record.mtp_loss = g.mtp_loss;
  if (settings_.train.balance_alpha > 0 && model_->experts() > 0)
    record.balance_loss = g.balance_loss;
  record.seconds = clock_.monotonic_s() - step_began_s_;
  record.tokens_per_s = static_cast<double>(g.tokens) / record.seconds;
  // Rows of conversations may be shorter than they could be.
  const double flops = (g.mtp_loss ? figures_.flops_mtp_step : figures_.flops_step) *
                       static_cast<double>(g.tokens) /
                       static_cast<double>(preferences_ ? preferences_->tokens_per_step()
                                                        : settings_.train.tokens_per_step);
  record.mfu = flops / record.seconds / figures_.peak_flops_per_s;
  own_flops_ += flops;
  own_tokens_ += g.tokens;
  state_.seconds += record.seconds;
  state_.held_out_loss.reset();
  held_out_loss_.reset();
  held_out_pairs_.reset();
  last_loss_ = g.loss;
  ++own_steps_;
  own_seconds_ += record.seconds;
}

/// Why the update must not be made, if so.
std::optional<std::string> TrainingRun::refusal(const StepGradients& g,
                                                const StepRecord& record) const {
  if (!g.finite) return fmt::format("not finite (loss {}, gradient norm {})", g.loss, g.norm);
  const TrainSettings& t = settings_.train;
  if (t.skip_loss_z > 0 && record.loss_z && *record.loss_z > t.skip_loss_z)
    return fmt::format(
        "loss {:.4f} is {:.1f} standard deviations above the last ones", g.loss, *record.loss_z);
  if (t.skip_gradient_z > 0 && record.gradient_norm_z &&
      *record.gradient_norm_z > t.skip_gradient_z)
    return fmt::format("gradient norm {:.4f} is {:.1f} standard deviations above the last ones",
                       g.norm,
                       *record.gradient_norm_z);
  return std::nullopt;
}

Result<void> TrainingRun::evaluate() {
  const std::optional<HeldOutRecord> record = preferences_ ? evaluate_pairs() : evaluate_texts();
  return record ? keep(*record) : Result<void>();
}

Result<void> TrainingRun::keep(HeldOutRecord record) {
  state_.held_out_loss = record.loss;
  record.step = state_.step;
  record.unix_ms = clock_.unix_ms();
  if (metrics_) tell(metrics_->write(record));
  progress_->held_out(record, metrics_ ? &metrics_->metrics() : nullptr);
  return {};
}

/// Nothing of what a stop cut short, or where nothing is held out.
std::optional<HeldOutRecord> TrainingRun::evaluate_texts() {
  if (first()) {
    beats_.begin(starts() ? Work::kFirstEvaluation : Work::kEvaluating,
                 std::min(dataset_->held_out().tokens(), settings_.train.evaluate_tokens));
    const OpsAlive alive;  // the first batch in the form that serves may take long
    held_out_loss_ =
        held_out_loss(*model_, *held_out_, settings_.train.evaluate_tokens, [this](int64_t done) {
          beats_.advance(done);
          return !told_to_stop();
        });
    static_cast<void>(fault_point("step.evaluate"));
  }
  if (guard_) guard_->compare(state_.step);  // also what the figure is of
  if (shared_) held_out_loss_ = shared_->held_out(state_.step, held_out_loss_);
  if (!held_out_loss_) return std::nullopt;
  return record_of(*held_out_loss_);
}

std::optional<HeldOutRecord> TrainingRun::evaluate_pairs() {
  beats_.begin(starts() ? Work::kFirstEvaluation : Work::kEvaluating,
               std::ssize(preferences_->held_out()),
               supervisor::Unit::kPairs);
  const OpsAlive alive;
  const std::optional<DpoLoss> loss =
      preferences_->evaluate(*model_, settings_.train.evaluate_tokens, [this](int64_t done) {
        beats_.advance(done);
        return !told_to_stop();
      });
  if (!loss) return std::nullopt;
  held_out_pairs_ = loss->figures;
  HeldOutRecord record{.loss = loss->loss, .bits_per_byte = kNone};
  record.pairs = static_cast<double>(loss->weights.size());
  record.pairs_held_out = static_cast<double>(preferences_->held_out().size());
  set_figures(record, loss->figures);
  return record;
}

Result<void> TrainingRun::save(bool last) {
  if (shared_) {
    begin_step();  // the others give what they have of it
    if (guard_) guard_->compare(state_.step);
    shared_->collect_state(state_.step, *optimizer_);
    if (guard_) guard_->compare_collected(state_.step);
  }
  static_cast<void>(fault_point("step.save"));
  if (first()) {
    TRY(stay_in_run_folder(
        settings_.checkpoint.dir, *folder_, *metrics_, [this](const std::string& text) {
          progress_->note(text);
        }));
    if (state_.rewinds.count > 0) set_undone_aside();
    std::function<bool()> keep_waiting;
    if (last) keep_waiting = [this] { return !told_to_stop(); };
    TRY_ASSIGN(const Saved saved,
               save_run(*model_,
                        texts(),
                        adapter_.get(),
                        *optimizer_,
                        state_,
                        data_,
                        settings_,
                        metrics_->metrics(),
                        beats_,
                        *progress_,
                        keep_waiting));
    if (saved == Saved::kNoRoom) return {};
  }
  saved_step_ = state_.step;
  saved_figure_ = state_.held_out_loss.has_value();
  damaged_.erase(state_.step);
  undone_.erase(state_.step);  // it is the run's again
  return {};
}

TrainResult TrainingRun::result() const {
  TrainResult r;
  r.stopped = state_.step < settings_.train.steps;
  r.step = state_.step;
  if (saved_step_ >= 0) name_saved(settings_, saved_step_, r);
  r.loss = last_loss_;
  if (held_out_pairs_) {
    r.held_out_accuracy = held_out_pairs_->rewards_accuracies;
    r.held_out_margin = held_out_pairs_->rewards_margins;
  }
  if (held_out_loss_) r.held_out_bits_per_byte = held_out_loss_->bits_per_byte;
  if (own_seconds_ > 0) {
    r.tokens_per_s = static_cast<double>(own_tokens_) / own_seconds_;
    r.mfu = own_flops_ / own_seconds_ / figures_.peak_flops_per_s;
  }
  r.seconds = state_.seconds;
  r.rewinds = state_.rewinds.count;
  r.skipped_tokens = state_.rewinds.skipped_tokens;
  r.ranks = place().ranks;
  if (shared_ && own_steps_ > 0) {
    r.sent_bytes_per_step =
        static_cast<double>(shared_->spent().bytes) / static_cast<double>(own_steps_);
    r.exchange_share = shared_->spent().seconds / own_seconds_;
    if (guard_)
      r.corruption_checks_share =
          (guard_->spent().hashing_s + guard_->spent().auditing_s) / own_seconds_;
  }
  return r;
}

void name_saved(const Settings& settings, int64_t step, TrainResult& result) {
  const bool adapter = settings.lora.rank > 0;
  (adapter ? result.adapter : result.model_dir) = checkpoint_path(settings.checkpoint.dir, step);
  if (adapter) result.model_dir = settings.model.init;
}

Result<TrainResult> train(const Settings& settings, const TrainOptions& options) {
  return TrainingRun(settings, options).go();
}

}  // namespace ferry
