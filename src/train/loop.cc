#include "train/loop.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/signature.h"
#include "base/system.h"
#include "base/units.h"
#include "data/loader.h"
#include "device/chip.h"
#include "device/cpu/cpu_device.h"
#include "train/curve.h"
#include "train/estimate.h"
#include "train/metrics.h"
#include "train/model_setup.h"
#include "train/progress.h"
#include "train/run_passport.h"
#include "train/run_state.h"
#include "train/train_step.h"

namespace ferry {
namespace {

constexpr int kRefusedInARowMax = 20;  // then the run has diverged: going on only burns the machine

struct HeldOutLoss {
  double nats_per_token = 0, bits_per_byte = 0;
};

/// Removes what write_file_atomic left in the run's folder when its process was killed. The folder
/// is locked: nobody is writing there. (Step folders that were being written have their own rules,
/// and are hidden.)
Result<void> remove_leftovers(const std::string& folder) {
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(folder));
  for (const std::string& name : names)
    if (name.starts_with("metrics.jsonl.tmp.") || name.starts_with("curve.svg.tmp."))
      TRY(remove_tree(join_path(folder, name)));
  return {};
}

/// For the message that the newest checkpoint cannot be used: the next older one that can, every
/// byte of it checked.
std::string older_whole(const CheckpointList& list) {
  for (size_t i = list.complete.size() - 1; i-- > 0;) {
    const std::string& path = list.complete[i].path;
    Result<ModelDir> dir = ModelDir::open(path);
    if (dir && dir->verify())
      return fmt::format(". {} (step {}) is whole: move {} away, and --resume goes on from there",
                         path,
                         list.complete[i].step,
                         list.complete.back().path);
  }
  return "";
}

class Run {
 public:
  Run(const Settings& settings, const TrainOptions& options)
      : settings_(settings), options_(options) {}

  Result<TrainResult> go() {
    TRY(prepare());
    Result<void> trained = steps();
    progress_->finish();
    TRY(trained);
    return result();
  }

 private:
  Result<void> prepare();
  Result<void> resume_or_begin();
  Result<void> resume_from(const CheckpointInfo& newest);
  Result<void> announce();
  Result<void> steps();
  Result<void> one_step();
  std::optional<std::string> refusal(const StepGradients& g, const StepRecord& record) const;
  Result<void> evaluate();
  Result<void> save();
  TrainResult result() const;
  bool stopping() const { return options_.stop != nullptr && options_.stop->load(); }
  void say(const std::string& text) {
    std::fprintf(options_.out, "%s\n", text.c_str());
    std::fflush(options_.out);
  }

  const Settings& settings_;
  const TrainOptions& options_;
  const Clock& clock_ = system_clock();
  Device* device_ = nullptr;
  std::optional<FolderLock> lock_;
  std::shared_ptr<const data::Dataset> dataset_;
  std::optional<data::Loader> loader_;
  std::optional<data::HeldOut> held_out_;
  std::unique_ptr<models::CausalLm> model_;
  std::optional<Optimizer> optimizer_;
  std::optional<TrainStep> step_;
  std::optional<MetricsLog> metrics_;
  std::optional<Progress> progress_;
  Schedule schedule_;
  RunState state_;
  Estimate estimate_;
  std::optional<HeldOutLoss> held_out_loss_;
  int64_t saved_step_ = -1;
  int64_t own_steps_ = 0;  // of this process
  double own_seconds_ = 0;
  double own_flops_ = 0;
  double last_loss_ = 0;
  int refused_in_a_row_ = 0;
};

Result<void> Run::prepare() {
  if (settings_.train.threads > 0) set_cpu_threads(static_cast<int>(settings_.train.threads));
  if (!settings_.checkpoint.key.empty()) TRY(read_secret_key(settings_.checkpoint.key));
  TRY_ASSIGN(device_, open_device(settings_.train.device));
  if (options_.replay_to > 0) set_replay(*device_, true);
  TRY_ASSIGN(lock_, FolderLock::acquire(settings_.checkpoint.dir));
  TRY(remove_leftovers(settings_.checkpoint.dir));
  TRY_ASSIGN(dataset_, data::Dataset::open(settings_.data.dir, data::Dataset::Verify::kAll));
  TRY_ASSIGN(
      loader_,
      data::Loader::create(dataset_,
                           {.sequence_length = static_cast<int32_t>(settings_.data.sequence_length),
                            .tokens_per_step = settings_.train.tokens_per_step,
                            .seed = static_cast<uint64_t>(settings_.train.seed)}));
  TRY_ASSIGN(held_out_,
             data::HeldOut::create(dataset_,
                                   static_cast<int32_t>(settings_.data.sequence_length),
                                   settings_.train.micro_batch_tokens));
  schedule_ = schedule_of(settings_);
  TRY(resume_or_begin());
  TRY(announce());
  step_.emplace(
      *model_,
      *optimizer_,
      StepSettings{.mla_form = settings_.train.mla_form == "absorbed" ? models::MlaForm::kAbsorbed
                                                                      : models::MlaForm::kExpanded,
                   .recompute = recompute_of(settings_.train),
                   .mtp_weight = settings_.train.mtp_weight,
                   .mtp_every = settings_.train.mtp_every,
                   .balance_alpha = settings_.train.balance_alpha,
                   .bias_update_speed = settings_.train.bias_update_speed,
                   .clip = settings_.train.clip});
  TRY_ASSIGN(
      metrics_,
      MetricsLog::open(settings_.checkpoint.dir, state_.step, settings_.log.tensorboard, clock_));
  progress_.emplace(
      ProgressSettings{.steps = settings_.train.steps,
                       .every = settings_.log.every,
                       .terminal = Progress::is_terminal(options_.out),
                       .colour = Progress::wants_colour(options_.out, settings_.log.colour)},
      options_.out);
  return {};
}

Result<void> Run::resume_or_begin() {
  TRY_ASSIGN(const CheckpointList list, list_checkpoints(settings_.checkpoint.dir));
  for (const std::string& why : list.ignored) say("ignored    " + why);
  if (!options_.resume && !list.complete.empty())
    return fail(Code::kInvalidInput,
                "{}: holds a run that got to step {}; go on with it by --resume, or choose another "
                "checkpoint.dir",
                settings_.checkpoint.dir,
                list.complete.back().step);
  if (list.complete.empty()) {
    if (options_.resume) say("resume     no checkpoint yet: from the beginning");
    TRY_ASSIGN(
        const std::string config,
        resolve_config(settings_.model, dataset_->manifest(), settings_.data.sequence_length));
    TRY_ASSIGN(model_, make_training_model(settings_, config, *device_));
    optimizer_.emplace(optimizer_of(settings_), model_->weights());
  } else {
    const CheckpointInfo& newest = list.complete.back();
    if (const Result<void> resumed = resume_from(newest); !resumed)
      return fail(resumed.error().code, "{}{}", resumed.error().message, older_whole(list));
  }
  const std::string here = device_->kind() == DeviceKind::kCpu
                               ? fmt::format("cpu, {}", processor_name())
                               : device_->describe();
  if (std::find(state_.devices.begin(), state_.devices.end(), here) == state_.devices.end())
    state_.devices.push_back(here);
  if (settings_.data.sequence_length > model_->max_positions())
    return fail(Code::kInvalidInput,
                "data.sequence_length {}: the model has {} positions (max_position_embeddings)",
                settings_.data.sequence_length,
                model_->max_positions());
  return {};
}

Result<void> Run::resume_from(const CheckpointInfo& newest) {
  TRY_ASSIGN(const std::string config, checkpoint_config(newest));
  const DType compute = settings_.train.compute == "f32" ? DType::kF32 : DType::kBF16;
  TRY_ASSIGN(model_, models::make_model(config, newest.path, *device_, compute, DType::kF32));
  optimizer_.emplace(optimizer_of(settings_), model_->weights());
  TRY_ASSIGN(Resumed resumed, restore(newest, *model_, *optimizer_, *dataset_));
  state_ = resumed.state;
  saved_step_ = state_.step;
  say(fmt::format("resume     from {} (step {})", newest.path, state_.step));
  for (const SettingChange& c : changed_settings(resumed.settings, settings_))
    say(fmt::format("changed    {}: {} -> {}", c.key, c.was, c.now));
  return {};
}

Result<void> Run::announce() {
  estimate_ = estimate(*model_,
                       settings_,
                       optimizer_->state_bytes(),
                       checkpoint_bytes(*model_, *optimizer_, *dataset_, settings_),
                       measure_peak(*device_, model_->compute()));
  say(describe(estimate_, settings_));
  say(fmt::format("data       {} tokens in {} documents, {} of text",
                  format_count(static_cast<double>(dataset_->train().tokens())),
                  dataset_->train().size(),
                  format_bytes(static_cast<double>(dataset_->train().bytes()))));
  say(fmt::format("device     {}, {}, compute {}",
                  device_->describe(),
                  processor_name(),
                  settings_.train.compute));
  // The weights and the optimizer's state are allocated by now; only what is still to come must
  // fit.
  Estimate rest = estimate_;
  rest.memory_bytes -= 4.0 * static_cast<double>(estimate_.parameters_total) +
                       static_cast<double>(optimizer_->state_bytes());
  TRY_ASSIGN(const uint64_t disk, free_disk_bytes(settings_.checkpoint.dir));
  const std::optional<uint64_t> chip = chip_memory_available(*device_);
  return check_fits(rest, settings_, chip ? MemoryAvailable{*chip, ""} : memory_available(), disk);
}

Result<void> Run::steps() {
  if (options_.beat) options_.beat(state_.step);
  if (state_.step >= options_.replay_to && options_.replay_to > 0) set_replay(*device_, false);
  while (state_.step < settings_.train.steps && !stopping()) {
    TRY(one_step());
    if (options_.replay_to == state_.step) set_replay(*device_, false);
    if (options_.beat) options_.beat(state_.step);
    const bool last = state_.step == settings_.train.steps;
    const int64_t e = settings_.train.evaluate_every, c = settings_.checkpoint.every;
    const bool save_now = last || (c > 0 && state_.step % c == 0);
    if (last || (e > 0 && state_.step % e == 0)) TRY(evaluate());
    if (save_now) TRY(save());
  }
  if (stopping() && saved_step_ != state_.step) TRY(save());
  return {};
}

Result<void> Run::one_step() {
  const double begin = clock_.monotonic_s();
  std::vector<data::Batch> micro_batches;
  const int64_t size = settings_.train.micro_batch_tokens / settings_.data.sequence_length;
  for (int64_t first = 0; first < loader_->sequences_per_step(); first += size)
    micro_batches.push_back(loader_->micro_batch(state_.step, first, size));
  const StepGradients g = step_->gradients(state_.step, micro_batches);
  StepRecord record;
  record.loss = g.loss;
  record.gradient_norm = g.norm;
  record.loss_z = state_.loss_z.add(g.loss);
  record.gradient_norm_z = state_.norm_z.add(g.norm);
  record.lr = learning_rate_at(schedule_, state_.step);
  record.skipped = refusal(g, record);
  if (!record.skipped) step_->update(record.lr);
  device_->stream().synchronize();

  ++state_.step;
  record.step = state_.step;
  record.unix_ms = clock_.unix_ms();
  record.tokens = state_.step * settings_.train.tokens_per_step;
  record.bits_per_byte = g.loss * static_cast<double>(g.tokens) / std::log(2.0) /
                         static_cast<double>(std::max<int64_t>(1, g.label_bytes));
  record.mtp_loss = g.mtp_loss;
  if (settings_.train.balance_alpha > 0 && model_->experts() > 0)
    record.balance_loss = g.balance_loss;
  record.seconds = clock_.monotonic_s() - begin;
  record.tokens_per_s = static_cast<double>(g.tokens) / record.seconds;
  const double flops = g.mtp_loss ? estimate_.flops_mtp_step : estimate_.flops_step;
  record.mfu = flops / record.seconds / estimate_.peak_flops_per_s;
  own_flops_ += flops;
  state_.seconds += record.seconds;
  state_.held_out_loss.reset();
  held_out_loss_.reset();
  last_loss_ = g.loss;
  ++own_steps_;
  own_seconds_ += record.seconds;
  TRY(metrics_->write(record));
  progress_->step(record);
  if (!record.skipped) {
    refused_in_a_row_ = 0;
    return {};
  }
  ++state_.refused;
  progress_->note(fmt::format(
      "step {}: update refused: {}; the weights stay as they were", state_.step, *record.skipped));
  if (++refused_in_a_row_ < kRefusedInARowMax) return {};
  return fail(
      Code::kVerdict,
      "{} updates in a row were refused; the last checkpoint is in {}. Lower optimizer.lr or raise "
      "schedule.warmup_steps and go on with --resume",
      refused_in_a_row_,
      settings_.checkpoint.dir);
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

/// Held-out text is scored as it will be when the model serves: in the absorbed form.
Result<void> Run::evaluate() {
  if (held_out_->batches() == 0) return {};
  double nats = 0;
  int64_t tokens = 0, bytes = 0;
  for (int64_t b = 0;
       b < held_out_->batches() && tokens < settings_.train.evaluate_tokens && !stopping();
       ++b) {
    const data::Batch batch = held_out_->batch(b);
    const Shape shape = {static_cast<int64_t>(batch.tokens.size())};
    models::TokenBatch t;
    t.tokens = Tensor::from_i32(batch.tokens, shape, *device_);
    t.labels = Tensor::from_i32(batch.labels, shape, *device_);
    t.segments = ops::Segments::packed(batch.segment_lengths, *device_);
    for (const float l : model_->losses(t, {}, {}).token_losses.to_f32())
      nats += static_cast<double>(l);
    tokens += shape[0];
    bytes += batch.label_bytes;
    if (options_.beat) options_.beat(state_.step);
  }
  if (stopping() || tokens == 0) return {};
  held_out_loss_ =
      HeldOutLoss{nats / static_cast<double>(tokens),
                  nats / std::log(2.0) / static_cast<double>(std::max<int64_t>(1, bytes))};
  state_.held_out_loss = held_out_loss_->nats_per_token;
  const HeldOutRecord record{.step = state_.step,
                             .unix_ms = clock_.unix_ms(),
                             .loss = held_out_loss_->nats_per_token,
                             .bits_per_byte = held_out_loss_->bits_per_byte};
  TRY(metrics_->write(record));
  progress_->held_out(record);
  return {};
}

Result<void> Run::save() {
  const double begin = clock_.monotonic_s();
  ModelContents contents = model_contents(*model_, *dataset_, settings_);
  TRY(add_passport(contents, *model_, state_, *dataset_, settings_));
  TRY_ASSIGN(const SaveReport report,
             save_checkpoint(settings_.checkpoint.dir,
                             state_.step,
                             contents,
                             state_contents(*model_, *optimizer_, state_, *dataset_, settings_)));
  saved_step_ = state_.step;
  progress_->note(fmt::format("saved      {} ({}, {})",
                              report.path,
                              format_bytes(static_cast<double>(report.bytes)),
                              format_duration(clock_.monotonic_s() - begin)));
  for (const std::string& w : report.warnings) progress_->note("warning    " + w);
  TRY(prune_checkpoints(settings_.checkpoint.dir,
                        {.keep_last = static_cast<int>(settings_.checkpoint.keep_last),
                         .keep_best = settings_.checkpoint.keep_best ? 1 : 0}));
  if (!settings_.log.curve) return {};
  const CurveOptions curve{
      .title = "Training loss",
      .subtitle = fmt::format(
          "{} parameters, {} tokens",
          format_count(static_cast<double>(estimate_.parameters_total)),
          format_count(static_cast<double>(state_.step * settings_.train.tokens_per_step))),
      .steps = settings_.train.steps};
  return write_file_atomic(join_path(settings_.checkpoint.dir, "curve.svg"),
                           loss_curve_svg(metrics_->metrics(), curve));
}

TrainResult Run::result() const {
  TrainResult r;
  r.stopped = state_.step < settings_.train.steps;
  r.step = state_.step;
  r.model_dir =
      checkpoint_path(settings_.checkpoint.dir, saved_step_ >= 0 ? saved_step_ : state_.step);
  if (own_steps_ > 0) r.loss = last_loss_;
  if (held_out_loss_) r.held_out_bits_per_byte = held_out_loss_->bits_per_byte;
  if (own_seconds_ > 0) {
    const double steps_per_s = static_cast<double>(own_steps_) / own_seconds_;
    r.tokens_per_s = steps_per_s * static_cast<double>(settings_.train.tokens_per_step);
    r.mfu = own_flops_ / own_seconds_ / estimate_.peak_flops_per_s;
  }
  r.seconds = state_.seconds;
  return r;
}

}  // namespace

Result<TrainResult> train(const Settings& settings, const TrainOptions& options) {
  return Run(settings, options).go();
}

}  // namespace ferry
