// How a training run begins: its folder, its data, its model or checkpoint, what it is estimated to take, and that all
// ranks have the same.
#include <algorithm>
#include <functional>
#include <utility>

#include "base/alive.h"
#include "base/counted.h"
#include "base/fault.h"
#include "base/signature.h"
#include "base/system.h"
#include "base/units.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "train/model_setup.h"
#include "train/reference_file.h"
#include "train/run_begin.h"
#include "train/run_passport.h"
#include "train/run_save.h"
#include "train/training_run.h"

namespace ferry {

using supervisor::Work;

namespace {

constexpr double kKeepReferenceS =
    30;  // so much of the reference is lost at most where a run is killed

}  // namespace

/// What is wrong with one rank all are told, or none would know why another left. Alone, `mine` is all there is.
Result<void> TrainingRun::together(Result<void> mine, const Identity& identity) {
  if (ranks() == nullptr) return mine;
  const Agreement agreed =
      agree(*ranks(),
            agreements_++,
            {.prepared = std::move(mine), .stop = told_to_stop(), .identity = identity},
            kForever);
  stop_agreed_ = agreed.stop;
  return agreed.all;
}

bool TrainingRun::stop_here() {
  if (ranks() == nullptr) return told_to_stop();
  static_cast<void>(fault_point("step.stop"));
  begin_step();  // what is waited for is another rank's step, be it after a save that took its time
  return stop_agreed_ =
             comm::any_of(*ranks(), {comm::Purpose::kStop, state_.step}, told_to_stop(), kForever);
}

Result<void> TrainingRun::begin() {
  TRY(together(enter(), {}));
  return stopping() ? Result<void>() : prepare_together();
}

/// The folder is rank 0's to mend before anybody reads what is in it.
Result<void> TrainingRun::enter() {
  if (!settings_.rl.tasks.empty())
    return fail(Code::kInvalidInput,
                "rl.tasks is set: a run that learns from tasks is begun by ferry rl");
  if (of_pairs() && ranks() != nullptr)
    return fail(
        Code::kInvalidInput,
        "dpo.pairs is set: pairs of answers are learnt from by one process; leave launch out");
  if (settings_.train.anticipatory_steps > 0 && ranks() != nullptr)
    return fail(Code::kInvalidInput,
                "train.anticipatory_steps is {}: routing is anticipated by one process; set it to "
                "0, or leave launch out",
                settings_.train.anticipatory_steps);
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

Result<void> TrainingRun::prepare_together() {
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
  if (stopping()) return {};
  share_figures();
  if (guard_) guard_->wrote();
  return {};
}

/// Whoever is rank 0 later says how fast the run is, too.
void TrainingRun::share_figures() {
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
Result<void> TrainingRun::prepare() {
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
  if (settings_.train.anticipatory_steps > 0 && model_->experts() == 0)
    return fail(
        Code::kInvalidInput,
        "train.anticipatory_steps is {}: the model has no experts that tokens could be sent "
        "to; it must be 0",
        settings_.train.anticipatory_steps);
  if (told_to_stop()) return {};
  if (first()) TRY(announce());
  if (preferences_) TRY(take_reference());
  if (told_to_stop()) return {};
  make_step();
  return first() ? open_metrics() : Result<void>();
}

/// Anew where the weights were: they may be other tensors.
void TrainingRun::make_step() {
  if (ranks() != nullptr && !shared_) {
    shared_.emplace(*ranks(), optimizer_->weights(), kForever);
    if (const std::optional<AuditSettings> audits = audits_of(settings_.train))
      guard_.emplace(
          *audits, *shared_, *optimizer_, model_->weights(), [this](const std::string& text) {
            progress_->note(text);
          });
  }
  step_.emplace(*model_,
                *optimizer_,
                step_settings(settings_.train),
                shared_ ? &*shared_ : nullptr,
                adapter_.get(),
                guard_ ? &*guard_ : nullptr);
  if (progress_) return;
  progress_.emplace(ProgressSettings{.steps = settings_.train.steps, .every = settings_.log.every},
                    output_,
                    Terminal::of(options_.out),
                    settings_.log.colour);
}

Result<void> TrainingRun::open_metrics() {
  TRY_ASSIGN(metrics_,
             MetricsLog::open(settings_.checkpoint.dir,
                              state_.step,
                              settings_.log.tensorboard,
                              clock_,
                              {.rewinds = state_.rewinds.count, .after = state_.rewinds.to}));
  for (const std::string& note : metrics_->notes()) progress_->note("note       " + note);
  return {};
}

/// What the log of metrics says of itself, if anything.
void TrainingRun::tell(const std::optional<std::string>& news) {
  if (news) progress_->note(*news);
}

Result<void> TrainingRun::read_texts() {
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

Result<void> TrainingRun::read_pairs() {
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
Result<void> TrainingRun::take_reference() {
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

Result<void> TrainingRun::announce() {
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
  if (const std::optional<AuditSettings> audits = audits_of(settings_.train);
      ranks() != nullptr && audits && audits->any())
    estimate_.memory_bytes +=
        static_cast<double>(audit_bytes(*optimizer_, place().ranks, micro_batches()));
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
  return outlive_full_disk(
      check_still_fits(estimate_,
                       settings_,
                       *device_,
                       {.model_bytes = model_bytes, .state_bytes = state_bytes},
                       place().ranks),
      options_.follows,
      [this](const std::string& text) { say(text); });
}

std::string TrainingRun::data_line() const {
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

}  // namespace ferry
