#include "train/loop.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <type_traits>

#include "base/alive.h"
#include "base/clock.h"
#include "base/counted.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/math.h"
#include "base/patient_output.h"
#include "base/signature.h"
#include "base/system.h"
#include "base/units.h"
#include "data/loader.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "train/agreement.h"
#include "train/beats.h"
#include "train/carried.h"
#include "train/estimate.h"
#include "train/held_out.h"
#include "train/metrics.h"
#include "train/model_setup.h"
#include "train/preferences.h"
#include "train/progress.h"
#include "train/recovery_plan.h"
#include "train/reference_file.h"
#include "train/refusals.h"
#include "train/run_begin.h"
#include "train/run_folder.h"
#include "train/run_passport.h"
#include "train/run_save.h"
#include "train/train_step.h"

namespace ferry {
namespace {

using supervisor::Work;

// Ranks wait for each other as long as it takes, be it a save or an evaluation: the links of one that died close, and
// hangs are found by who started them, who knows what each is at.
constexpr double kKeepReferenceS =
    30;  // so much of the reference is lost at most where a run is killed
constexpr double kForever = std::numeric_limits<double>::infinity();

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

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

HeldOutRecord record_of(const HeldOutLoss& loss) {
  return {.loss = loss.nats_per_token, .bits_per_byte = loss.bits_per_byte};
}

/// What a rank cannot have from the others it cannot go on without.
template <typename T>
T or_lost(Result<T> result) {
  if (!result) throw StateLost(result.error().message);
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

class Run {
 public:
  Run(const Settings& settings, const TrainOptions& options)
      : settings_(settings),
        options_(options),
        beats_(options.beat, system_clock()),
        output_(options.out, tells_that_reader_left(settings.checkpoint.dir)) {}

  Result<TrainResult> go() {
    if (ranks() != nullptr) ranks()->when_waiting([this](int peer) { beats_.waiting_for(peer); });
    Result<void> done = options_.takes_place ? take_place() : begin();
    if (done && !stopping()) done = steps();
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
  StepGradients pairs_step(StepRecord& record);
  void count(const StepGradients& g, StepRecord& record);
  std::optional<std::string> refusal(const StepGradients& g, const StepRecord& record) const;
  Result<void> evaluate();
  std::optional<HeldOutRecord> evaluate_texts();
  std::optional<HeldOutRecord> evaluate_pairs();
  Result<void> keep(HeldOutRecord record);
  bool evaluates_at(int64_t step) const;
  Result<void> save();
  void leave_together();
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
  std::optional<SharedStep> shared_;  // with other ranks
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
  int64_t tokens_after_ = 0;  // RunState::tokens
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
  int64_t agreements_ = 0;
  bool stop_agreed_ = false;
};

/// What is wrong with one rank all are told, or none would know why another left. Alone, `mine` is all there is.
Result<void> Run::together(Result<void> mine, const Identity& identity) {
  if (ranks() == nullptr) return mine;
  const Agreement agreed =
      agree(*ranks(),
            agreements_++,
            {.prepared = std::move(mine), .stop = told_to_stop(), .identity = identity},
            kForever);
  stop_agreed_ = agreed.stop;
  return agreed.all;
}

bool Run::stop_here() {
  if (ranks() == nullptr) return told_to_stop();
  static_cast<void>(fault_point("step.stop"));
  begin_step();  // what is waited for is another rank's step, be it after a save that took its time
  return stop_agreed_ =
             comm::any_of(*ranks(), {comm::Purpose::kStop, state_.step}, told_to_stop(), kForever);
}

Result<void> Run::begin() {
  TRY(together(enter(), {}));
  return stopping() ? Result<void>() : prepare_together();
}

/// The folder is rank 0's to mend before anybody reads what is in it.
Result<void> Run::enter() {
  if (!settings_.rl.tasks.empty())
    return fail(Code::kInvalidInput,
                "rl.tasks is set: a run that learns from tasks is begun by ferry rl");
  if (of_pairs() && ranks() != nullptr)
    return fail(
        Code::kInvalidInput,
        "dpo.pairs is set: pairs of answers are learnt from by one process; leave launch out");
  if (settings_.train.threads > 0)
    set_cpu_threads(static_cast<int>(settings_.train.threads));
  else if (ranks() != nullptr)
    set_cpu_threads(std::max(1, available_processors() / place().ranks));
  TRY(signing_key(settings_.checkpoint));
  TRY_ASSIGN(device_, open_device(settings_.train.device));
  if (options_.replay_to > 0) device_->set_replay(true);
  if (!first()) return {};
  TRY_ASSIGN(folder_,
             enter_run_folder(settings_.checkpoint.dir,
                              options_.resume,
                              [this](const std::string& text) { say(text); }));
  if (ranks() != nullptr) TRY(list_checkpoints(settings_.checkpoint.dir));
  return {};
}

Result<void> Run::prepare_together() {
  Result<void> prepared = prepare();
  Identity identity;
  if (ranks() != nullptr && prepared && !told_to_stop()) {
    const Result<Identity> mine = identity_of(settings_, data_, *model_, state_, *optimizer_);
    if (mine)
      identity = *mine;
    else
      prepared = tl::unexpected(mine.error());
  }
  TRY(together(std::move(prepared), identity));
  if (!stopping()) share_figures();
  return {};
}

/// Whoever is rank 0 later says how fast the run is, too.
void Run::share_figures() {
  figures_ = {estimate_.flops_step, estimate_.flops_mtp_step, estimate_.peak_flops_per_s};
  if (ranks() == nullptr) return;
  std::vector<Figures> figures = {figures_};
  const comm::Tag tag{comm::Purpose::kFigures};
  for (int r = 1; first() && r < ranks()->ranks(); ++r)
    ranks()->send(r, tag, comm::bytes_of(std::as_const(figures)));
  if (!first()) ranks()->receive(0, tag, comm::bytes_of(figures));
  ranks()->finish(kForever);
  figures_ = figures[0];
}

/// A run that is to stop before it has begun has nothing to save: it looks between the long parts.
Result<void> Run::prepare() {
  beats_.begin(Work::kReadingData);
  TRY(of_pairs() ? read_pairs() : read_texts());
  if (told_to_stop()) return {};
  schedule_ = schedule_of(settings_);
  TRY_ASSIGN(Beginning begun,
             begin_run(
                 settings_,
                 options_.resume,
                 data_,
                 *device_,
                 beats_,
                 [this](const std::string& text) { say(text); },
                 place()));
  model_ = std::move(begun.model);
  adapter_ = std::move(begun.adapter);
  optimizer_ = std::move(begun.optimizer);
  texts_ = std::move(begun.texts);
  state_ = std::move(begun.state);
  saved_step_ = begun.saved_step;
  saved_figure_ = state_.held_out_loss.has_value();
  if (told_to_stop()) return {};
  if (first()) TRY(announce());
  if (preferences_) TRY(take_reference());
  if (told_to_stop()) return {};
  make_step();
  return first() ? open_metrics() : Result<void>();
}

void Run::make_step() {
  if (ranks() != nullptr) shared_.emplace(*ranks(), optimizer_->weights(), kForever);
  step_.emplace(*model_,
                *optimizer_,
                step_settings(settings_.train),
                shared_ ? &*shared_ : nullptr,
                adapter_.get());
  progress_.emplace(ProgressSettings{.steps = settings_.train.steps, .every = settings_.log.every},
                    output_,
                    Terminal::of(options_.out),
                    settings_.log.colour);
}

Result<void> Run::open_metrics() {
  TRY_ASSIGN(
      metrics_,
      MetricsLog::open(settings_.checkpoint.dir, state_.step, settings_.log.tensorboard, clock_));
  for (const std::string& note : metrics_->notes()) progress_->note("note       " + note);
  return {};
}

/// What the log of metrics says of itself, if anything.
void Run::tell(const std::optional<std::string>& news) {
  if (news) progress_->note(*news);
}

Result<void> Run::read_texts() {
  if (!options_.resume && !options_.takes_place)
    if (const Result<RunData> announced = RunData::announced(settings_.data.dir); announced)
      TRY(check_model(
          settings_, *announced, device_->kind()));  // else what is missing is told below
  TRY_ASSIGN(dataset_,
             data::Dataset::open(
                 settings_.data.dir,
                 // A successor reads what the others have read, and hold.
                 options_.takes_place ? data::Dataset::Verify::kSizes : data::Dataset::Verify::kAll,
                 [this](uint64_t done, uint64_t total) {
                   beats_.advance(static_cast<int64_t>(done), static_cast<int64_t>(total));
                 }));
  data_ = RunData::of(dataset_);
  TRY_ASSIGN(
      loader_,
      data::Loader::create(dataset_,
                           {.sequence_length = static_cast<int32_t>(settings_.data.sequence_length),
                            .seed = static_cast<uint64_t>(settings_.train.seed)}));
  TRY_ASSIGN(held_out_,
             data::HeldOut::create(dataset_,
                                   static_cast<int32_t>(settings_.data.sequence_length),
                                   settings_.train.micro_batch_tokens));
  return {};
}

Result<void> Run::read_pairs() {
  TRY_ASSIGN(AskedData asked, data_as_asked(settings_, options_.resume));
  Result<Preferences> read = Preferences::read(
      settings_,
      asked.texts,
      asked.directory,
      [this](const std::string& text) { say(text); },
      [this] {
        still_alive();
        return !told_to_stop();
      });
  if (!read && read.error().code == Code::kTimeout) return {};
  TRY(read);
  preferences_ = *std::move(read);
  data_ = std::move(asked.data);
  data_.place = settings_.dpo.pairs;
  data_.setting = "dpo.pairs and dpo.held_out";
  data_.fingerprint = preferences_->fingerprint();
  for (const PreferencePair& p : preferences_->held_out()) {
    if (data_.held_out.size() == 2) break;
    const std::vector<int32_t>& ids = p.chosen.front().ids;
    data_.held_out.emplace_back(ids.begin(), ids.end() - 1);
  }
  return {};
}

/// What the run's first model gives the answers: computed before the first step, kept from then on, so that
/// there never is a second model.
Result<void> Run::take_reference() {
  if (saved_step_ >= 0) {
    TRY_ASSIGN(state_.reference_log_probs,
               restore_reference_log_probs(checkpoint_path(settings_.checkpoint.dir, saved_step_),
                                           preferences_->answers()));
  } else {
    const int64_t pairs = preferences_->answers() / 2;
    const std::string& folder = settings_.checkpoint.dir;
    beats_.begin(Work::kReference, pairs);
    const std::string key =
        reference_key(*model_, mla_form_of(settings_.train), preferences_->fingerprint());
    Result<std::vector<float>> known =
        read_reference(folder, key, static_cast<size_t>(preferences_->answers()));
    if (!known && known.error().code != Code::kCorrupt) return tl::unexpected(known.error());
    if (!known)
      say(fmt::format("note       {}; the reference is computed anew", known.error().message));
    std::vector<float> log_probs = known ? *std::move(known) : std::vector<float>();
    const int64_t there = std::ssize(log_probs) / 2;
    say(fmt::format("reference  {} scored by the model that the run begins with{}",
                    counted(pairs - there, "pair is", "pairs are"),
                    there > 0 ? fmt::format("; {} were before", there) : std::string()));
    LiveLine line(output_, Terminal::of(options_.out));
    const OpsAlive alive;
    // What is computed is kept, so that a run that ends before its first checkpoint need not begin again.
    double kept_s = clock_.monotonic_s();
    Result<void> keeping;
    const bool whole = preferences_->add_reference(*model_, log_probs, [&](int64_t done) {
      static_cast<void>(fault_point("dpo.reference"));
      beats_.advance(done);
      line.show(fmt::format("reference  {} of {} pairs", done, pairs));
      if (clock_.monotonic_s() - kept_s >= kKeepReferenceS) {
        keeping = write_reference(folder, key, log_probs);
        kept_s = clock_.monotonic_s();
      }
      return keeping && !told_to_stop();
    });
    TRY(keeping);
    if (std::ssize(log_probs) > 2 * there) TRY(write_reference(folder, key, log_probs));
    if (!whole) return {};
    state_.reference_log_probs = Tensor::from_f32(log_probs, {std::ssize(log_probs)}, cpu_device());
  }
  preferences_->set_reference(state_.reference_log_probs);
  return {};
}

Result<void> Run::announce() {
  const uint64_t model_bytes = bytes_needed(
      adapter_ ? adapter_contents(*adapter_) : model_contents(*model_, texts(), data_, settings_));
  const uint64_t state_bytes =
      bytes_needed(state_contents(*model_, *optimizer_, {}, data_, settings_));
  Settings as_estimated = settings_;
  if (preferences_) as_estimated.train.tokens_per_step = preferences_->tokens_per_step();
  estimate_ = estimate(*model_,
                       as_estimated,
                       state_.step,
                       adapter_.get(),
                       optimizer_->state_bytes(),
                       model_bytes + state_bytes,
                       measure_peak(*device_, model_->compute()) * place().ranks);
  if (preferences_ && saved_step_ < 0)
    add_scoring(estimate_, *model_, as_estimated, preferences_->tokens());
  say(describe(estimate_, as_estimated));
  say(data_line());
  say(fmt::format("device     {}, {}, compute {}",
                  device_->describe(),
                  processor_name(),
                  settings_.train.compute));
  if (adapter_) say(describe(*adapter_));
  if (ranks() != nullptr)
    say(fmt::format("ranks      {} processes, {} each; {} micro-batches a step among them",
                    place().ranks,
                    counted(cpu_pool().threads(), "thread"),
                    micro_batches()));
  if (const std::string fields = models::differs_in_transformers(model_->config_json("float32"));
      !fields.empty())
    say(
        fmt::format("note       {}: Transformers does not honour this and computes another model; "
                    "Ferry computes this one (docs/directories.md)",
                    fields));
  if (state_.step >= settings_.train.steps)
    say(fmt::format("done       {} made, and train.steps is {}: nothing is left to train",
                    counted(state_.step, "step is", "steps are"),
                    settings_.train.steps));
  return check_still_fits(estimate_,
                          settings_,
                          *device_,
                          optimizer_->state_bytes(),
                          {.model_bytes = model_bytes, .state_bytes = state_bytes},
                          place().ranks);
}

std::string Run::data_line() const {
  if (preferences_)
    return fmt::format("pairs      {} to learn from, {} held out; {} a step, {:.3g} epochs in {}",
                       preferences_->pairs().size(),
                       preferences_->held_out().size(),
                       settings_.dpo.pairs_per_step,
                       static_cast<double>(settings_.train.steps * settings_.dpo.pairs_per_step) /
                           static_cast<double>(preferences_->pairs().size()),
                       counted(settings_.train.steps, "step"));
  return fmt::format("data       {} tokens in {}, {} of text",
                     format_count(static_cast<double>(dataset_->train().tokens())),
                     counted(dataset_->train().size(), "document"),
                     format_bytes(static_cast<double>(dataset_->train().bytes())));
}

Result<void> Run::steps() {
  beats_.step_done(state_.step);
  if (state_.step >= options_.replay_to && options_.replay_to > 0) device_->set_replay(false);
  for (;;) {
    try {
      return go_on();
    } catch (const comm::LinkError& e) {
      TRY(recover(e));
    }
  }
}

Result<void> Run::go_on() {
  for (;;) {
    TRY(close_step());
    if (state_.step >= settings_.train.steps || stop_here()) break;
    TRY(one_step());
    if (options_.replay_to == state_.step) device_->set_replay(false);
  }
  if (stopping() && saved_step_ != state_.step) TRY(save());
  if (metrics_) tell(metrics_->finish());
  leave_together();
  return stopping() ? Result<void>() : refusals_.end(state_.step);
}

/// What is due after the last step, as far as it has not been done: a stop cuts an evaluation short and saves what
/// there is, and a rank may be lost at any time. A checkpoint without its figure could never be kept as the best one,
/// and gets it when the run goes on.
Result<void> Run::close_step() {
  const int64_t c = settings_.checkpoint.every;
  const bool saved = saved_step_ == state_.step;
  const bool save_now =
      !saved && (state_.step == settings_.train.steps || (c > 0 && state_.step % c == 0));
  if (state_.step == 0) return {};
  const bool evaluate_now = evaluates_at(state_.step) && !state_.held_out_loss;
  if (evaluate_now) TRY(evaluate());
  // Also one that a rank has made up for, and another one, who is gone, was to save.
  return save_now || (saved && !saved_figure_ && state_.held_out_loss) ? save() : Result<void>();
}

/// Rank 0 writes what the others have given it: they stay until it is whole.
void Run::leave_together() {
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

bool Run::evaluates_at(int64_t step) const {
  const int64_t e = settings_.train.evaluate_every;
  return step == settings_.train.steps || (e > 0 && step % e == 0);
}

void Run::begin_step() {
  beats_.begin(starts() ? Work::kFirstStep : Work::kTraining, micro_batches());
}

/// The next step, whose tokens are taken from the stream.
void Run::prepare_texts() {
  std::vector<data::Batch> batches;
  const int64_t size = settings_.train.micro_batch_tokens / settings_.data.sequence_length;
  tokens_after_ = state_.tokens;
  for (int64_t m = 0; m < micro_batches(); ++m) {
    batches.push_back(loader_->sequences(tokens_after_, size));
    tokens_after_ = batches.back().end;
  }
  step_->prepare(state_.step, batches, [this](int64_t done) { beats_.advance(done); });
}

/// The same of pairs.
StepGradients Run::pairs_step(StepRecord& record) {
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

Result<void> Run::one_step() {
  step_began_s_ = clock_.monotonic_s();
  begin_step();
  std::optional<OpsAlive> alive;  // a first micro-batch may take longer than any patience
  if (own_steps_ == 0) alive.emplace();
  record_ = {};
  if (preferences_) {
    decide(pairs_step(record_));
  } else {
    prepare_texts();
    stage_ = Standing::Stage::kPrepared;
    decide(step_->commit());
  }
  if (!record_.skipped) step_->spread();
  alive.reset();
  return end_step();
}

/// Every rank is known to have prepared the step: what is held here is updated, or the update is refused.
void Run::decide(const StepGradients& g) {
  const OpsAlive alive;  // no micro-batch is done while the weights change
  gradients_ = g;
  record_.loss = g.loss;
  record_.gradient_norm = g.norm;
  record_.loss_z = state_.loss_z.add(g.loss);
  record_.gradient_norm_z = state_.norm_z.add(g.norm);
  record_.lr = learning_rate_at(schedule_, state_.step);
  record_.skipped = refusal(g, record_);
  if (!record_.skipped) step_->apply(record_.lr);
  stage_ = Standing::Stage::kCommitted;
}

/// All weights are here.
Result<void> Run::end_step() {
  if (!record_.skipped) {
    const OpsAlive alive;
    step_->settle();
  }
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
  beats_.step_done(state_.step);
  return refusals_.step(state_.step, record_.skipped, settings_.checkpoint.dir, *progress_);
}

/// The step is done: the run's state, and what is reported of it.
void Run::count(const StepGradients& g, StepRecord& record) {
  ++state_.step;
  state_.tokens = tokens_after_;
  state_.refused += record.skipped.has_value();
  record.step = state_.step;
  record.unix_ms = clock_.unix_ms();
  record.tokens = state_.tokens;
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
std::optional<std::string> Run::refusal(const StepGradients& g, const StepRecord& record) const {
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

Result<void> Run::evaluate() {
  const std::optional<HeldOutRecord> record = preferences_ ? evaluate_pairs() : evaluate_texts();
  return record ? keep(*record) : Result<void>();
}

Result<void> Run::keep(HeldOutRecord record) {
  state_.held_out_loss = record.loss;
  record.step = state_.step;
  record.unix_ms = clock_.unix_ms();
  if (metrics_) tell(metrics_->write(record));
  progress_->held_out(record, metrics_ ? &metrics_->metrics() : nullptr);
  return {};
}

/// Nothing of what a stop cut short, or where nothing is held out.
std::optional<HeldOutRecord> Run::evaluate_texts() {
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
  if (shared_) held_out_loss_ = shared_->held_out(state_.step, held_out_loss_);
  if (!held_out_loss_) return std::nullopt;
  return record_of(*held_out_loss_);
}

std::optional<HeldOutRecord> Run::evaluate_pairs() {
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

Result<void> Run::save() {
  if (shared_) {
    begin_step();  // the others give what they have of it
    shared_->collect_state(state_.step, *optimizer_);
  }
  static_cast<void>(fault_point("step.save"));
  if (first()) {
    TRY(stay_in_run_folder(
        settings_.checkpoint.dir, *folder_, *metrics_, [this](const std::string& text) {
          progress_->note(text);
        }));
    TRY(save_run(*model_,
                 texts(),
                 adapter_.get(),
                 *optimizer_,
                 state_,
                 data_,
                 settings_,
                 metrics_->metrics(),
                 beats_,
                 *progress_));
  }
  saved_step_ = state_.step;
  saved_figure_ = state_.held_out_loss.has_value();
  return {};
}

/// This process takes the place of a rank that is gone: it reads its data, the rest the others have.
Result<void> Run::take_place() {
  stage_ = Standing::Stage::kNothing;
  beats_.begin(Work::kTakingPlace);
  or_lost(enter());
  or_lost(read_texts());
  schedule_ = schedule_of(settings_);
  try {
    return settle();
  } catch (const comm::LinkError& e) {
    return recover(e);
  }
}

/// A rank is gone: its successor comes, and all meet again. Others may be lost meanwhile, as often as they are.
Result<void> Run::recover(comm::LinkError why) {
  for (;;) {
    // What was harmed on its way here may have been harmed here: the others go on with a successor.
    if (!why.gone()) throw why;
    const Result<void> met =
        ranks()->rejoin([&](int peer) { beats_.waiting_for(peer >= 0 ? peer : why.peer()); });
    if (!met) throw no_other_meeting(why, met.error());
    try {
      return settle();
    } catch (const comm::LinkError& again) {
      why = again;
    }
  }
}

/// Where there is none any more, whoever ended the run says how; else it is this rank that could not come.
comm::LinkError Run::no_other_meeting(const comm::LinkError& why, const Status& met) const {
  return {place().rank,
          why.peer(),
          met.code == Code::kUnavailable,
          fmt::format("{}; and the ranks cannot meet again: {}", why.what(), met.message)};
}

/// Everybody comes to stand after the same step, the successors too. May be cut short anywhere by another rank's end,
/// and begun again: what it changes of a rank it changes together with where that one says it stands.
Result<void> Run::settle() {
  agreements_ = 0;
  const std::vector<RankWord> words = or_lost(exchange_words(*ranks(), word(), kForever));
  std::vector<Standing> standings;
  for (const RankWord& w : words) standings.push_back(w.standing);
  const RecoveryPlan plan = or_lost(plan_recovery(standings));
  take_model(plan);
  if (const std::optional<std::vector<double>> squares = shared_->pass_on(plan))
    decide(step_->commit(*squares));
  else if (stage_ == Standing::Stage::kPrepared)
    stage_ = Standing::Stage::kBetween;  // nothing of the step has changed anything
  shared_->give(plan, *optimizer_);
  if (plan.behind[static_cast<size_t>(place().rank)]) TRY(end_step());
  give_untrained(plan);
  take_carried(plan);
  TRY(adopt(plan, words));
  agree_again();
  // Only when all are there is a successor somebody to hear of the step from: until then another loss makes it begin
  // again.
  stage_ = Standing::Stage::kBetween;
  beats_.step_done(state_.step);
  begin_step();  // whoever took a place is in it: the run may be over by then, and nothing else would tell
  std::string who;
  for (int r = 0; r < place().ranks; ++r)
    if (plan.fresh[static_cast<size_t>(r)])
      who += fmt::format("{}rank {}", who.empty() ? "" : ", ", r);
  progress_->note(fmt::format(
      "recovered  {}: in place again, with what the other ranks have; {}",
      who,
      plan.forward ? fmt::format("step {}, which was committed, is finished", plan.done)
                   : fmt::format("step {} goes on, after step {}", plan.done + 1, plan.done)));
  return {};
}

/// Where this one stands.
RankWord Run::word() const {
  RankWord mine{.standing = {.stage = stage_, .done = state_.step},
                .saved_step = saved_step_,
                .saved_figure = saved_figure_,
                .held_out = held_out_loss_};
  // A checkpoint that the run went on from has no more of it.
  if (!mine.held_out && state_.held_out_loss)
    mine.held_out = {.nats_per_token = *state_.held_out_loss, .bits_per_byte = kNone};
  if (fresh() && first()) {
    const CheckpointList there = or_lost(list_checkpoints(settings_.checkpoint.dir));
    if (!there.complete.empty()) {
      mine.saved_step = there.complete.back().step;
      mine.saved_figure = there.complete.back().held_out_loss.has_value();
    }
  }
  return mine;
}

void Run::take_model(const RecoveryPlan& plan) {
  const auto mine = [&] {
    return ModelWord{.config_json = model_->config_json("float32"), .texts = texts_};
  };
  std::optional<ModelWord> told = or_lost(hand_model(*ranks(), plan, mine, kForever));
  if (!told || model_) return;  // it is made already where another rank was lost on the way
  Beginning begun = or_lost(begin_in_place(settings_, data_, *device_, *std::move(told), place()));
  model_ = std::move(begun.model);
  adapter_ = std::move(begun.adapter);
  optimizer_ = std::move(begun.optimizer);
  texts_ = std::move(begun.texts);
  make_step();
}

/// An adapter's base is as it was.
void Run::give_untrained(const RecoveryPlan& plan) {
  if (!adapter_) return shared_->give_untrained(plan, model_->weights());
  if (fresh()) adapter_->merge();
}

/// The last thing that a successor needs.
void Run::take_carried(const RecoveryPlan& plan) {
  const auto mine = [&] {
    return Carried{.state = state_contents(*model_, *optimizer_, state_, data_, settings_).document,
                   .last_loss = last_loss_,
                   .refusals_of = refusals_.steps(),
                   .refusals_in_a_row = refusals_.in_a_row(),
                   .figures = figures_,
                   .last_record = record_.step > 0 ? to_json_line(record_) : ""};
  };
  const std::optional<Carried> told = or_lost(hand_carried(*ranks(), plan, mine, kForever));
  if (!told) return;
  StateDocument document =
      or_lost(read_state_document(told->state, "what a successor is told of the run"));
  if (document.data != data_.fingerprint)
    throw StateLost("a successor sees another data set than the run has: data.dir was replaced");
  state_ = std::move(document.state);
  state_.held_out_loss.reset();  // adopt() keeps it, and writes it down
  optimizer_->set_steps(document.updates);
  last_loss_ = told->last_loss;
  refusals_ = Refusals(told->refusals_of, told->refusals_in_a_row);
  figures_ = told->figures;
  if (first()) or_lost(open_metrics());
  if (told->last_record.empty()) return;
  record_ = or_lost(step_record_of(told->last_record, "the last step's record"));
  // Rank 0 may have been lost before it wrote it.
  const bool missing = metrics_ && (metrics_->metrics().steps.empty() ||
                                    metrics_->metrics().steps.back().step < record_.step);
  if (missing) tell(metrics_->write(record_));
}

/// What is known of the step that all stand after: its evaluation, if anybody has heard of it, and its checkpoint.
Result<void> Run::adopt(const RecoveryPlan& plan, const std::vector<RankWord>& words) {
  saved_step_ = words.front().saved_step;
  saved_figure_ = words.front().saved_figure;
  const auto knows = std::find_if(words.begin(), words.end(), [&](const RankWord& w) {
    return w.held_out && w.standing.stage != Standing::Stage::kNothing &&
           w.standing.done == plan.done;
  });
  if (knows == words.end() || state_.held_out_loss) return {};
  held_out_loss_ = knows->held_out;
  // Rank 0's successor may have read that its predecessor told of it.
  if (!metrics_ || !metrics_->tells_of_held_out(state_.step))
    return keep(record_of(*held_out_loss_));
  state_.held_out_loss = held_out_loss_->nats_per_token;
  return {};
}

/// As before the first step: all have the same, to the bit.
void Run::agree_again() {
  const Result<Identity> mine = identity_of(settings_, data_, *model_, state_, *optimizer_);
  Readiness readiness;
  if (mine)
    readiness.identity = *mine;
  else
    readiness.prepared = tl::unexpected(mine.error());
  or_lost(agree(*ranks(), agreements_++, readiness, kForever).all);
}

TrainResult Run::result() const {
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
  r.ranks = place().ranks;
  if (shared_ && own_steps_ > 0) {
    r.sent_bytes_per_step =
        static_cast<double>(shared_->spent().bytes) / static_cast<double>(own_steps_);
    r.exchange_share = shared_->spent().seconds / own_seconds_;
  }
  return r;
}

}  // namespace

void name_saved(const Settings& settings, int64_t step, TrainResult& result) {
  const bool adapter = settings.lora.rank > 0;
  (adapter ? result.adapter : result.model_dir) = checkpoint_path(settings.checkpoint.dir, step);
  if (adapter) result.model_dir = settings.model.init;
}

Result<TrainResult> train(const Settings& settings, const TrainOptions& options) {
  return Run(settings, options).go();
}

}  // namespace ferry
