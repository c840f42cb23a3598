// How a training run goes back from a loss spike to a checkpoint from before it (the rules: spike.h), and goes on
// behind the data that the spike was met in: alone, or with all other ranks.
//
// Nothing of it depends on who was killed meanwhile. A run that is begun again between the spike and the next
// checkpoint trains the same steps again, meets the same spike, and goes back to the same place.
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/alive.h"
#include "base/counted.h"
#include "base/fault.h"
#include "base/file.h"
#include "train/run_save.h"
#include "train/training_run.h"

namespace ferry {
namespace {

/// The records of steps that are undone, oldest first, behind those of earlier ones.
Result<void> set_aside(const std::string& folder, const Metrics& metrics, int64_t after) {
  std::string lines;
  for (const StepRecord& r : metrics.steps)
    if (r.step > after) lines += to_json_line(r) + "\n";
  if (lines.empty()) return {};
  TRY_ASSIGN(FileWriter file, FileWriter::append(join_path(folder, kUndoneName)));
  return file.write(lines);
}

}  // namespace

/// With other ranks everybody has made the step when this goes on: nobody is left who would need the step's sums.
Result<void> TrainingRun::go_back_if_due() {
  if (!goes_back(state_.spike, state_.step, settings_.train)) return {};
  TRY_ASSIGN(const int64_t to, agreed_place());
  const int64_t lasted = state_.step - state_.spike.since + 1;
  if (to == 0) {
    progress_->note(fmt::format(
        "warning    step {}: the loss has spiked for {}, and there is no checkpoint from before "
        "that to go back to: of step {} at least, and at a multiple of train.rewind_every",
        state_.step,
        counted(lasted, "step", "steps"),
        settings_.train.rewind_every));
    return {};
  }
  if (to == state_.rewinds.to && state_.rewinds.there >= settings_.train.rewinds)
    return fail(
        Code::kVerdict,
        "step {}: the loss has spiked for {} once more, after the run had gone back to step {} {}; "
        "its checkpoint is in {}. Look at the data from token {} on, lower optimizer.lr, raise "
        "schedule.warmup_steps, or raise train.rewinds, and go on with --resume",
        state_.step,
        counted(lasted, "step", "steps"),
        to,
        counted(state_.rewinds.there, "time", "times"),
        settings_.checkpoint.dir,
        state_.tokens + state_.rewinds.skipped_tokens);
  return go_back(to);
}

/// Rank 0 looks at the checkpoints, all hear which it is; 0: there is none.
Result<int64_t> TrainingRun::agreed_place() {
  int64_t to = 0;
  if (first()) {
    // What lies there may be another run's by now.
    TRY(stay_in_run_folder(
        settings_.checkpoint.dir, *folder_, *metrics_, [this](const std::string& text) {
          progress_->note(text);
        }));
    TRY_ASSIGN(const CheckpointList there, list_checkpoints(settings_.checkpoint.dir));
    std::vector<int64_t> steps;
    for (const CheckpointInfo& c : there.complete) steps.push_back(c.step);
    to = goes_back_to(state_.spike, state_.step, steps, settings_.train).value_or(0);
  }
  if (ranks() == nullptr) return to;
  static_cast<void>(fault_point("step.rewind"));
  begin_step();  // what is waited for is another rank's step
  const std::vector<int64_t> mine = {to};
  const std::vector<size_t> sizes(static_cast<size_t>(place().ranks), sizeof to);
  const auto all = comm::all_gather(
      *ranks(), {comm::Purpose::kRewind, state_.step}, comm::bytes_of(mine), sizes, kForever);
  std::memcpy(&to, all.front().data(), sizeof to);
  static_cast<void>(fault_point("step.rewound"));
  return to;
}

/// Says nothing to other ranks, so that it is done whole, or the process ends.
Result<void> TrainingRun::go_back(int64_t to) {
  begin_step();
  const OpsAlive alive;
  const std::string path = checkpoint_path(settings_.checkpoint.dir, to);
  TRY_ASSIGN(Resumed from, read_run({.step = to, .path = path, .held_out_loss = {}}, data_));
  TRY(restore(from, *model_, adapter_.get(), *optimizer_));
  RunState back = std::move(from.state);
  const int64_t undone = state_.step - to, taken = state_.tokens - back.tokens;
  const std::string why =
      fmt::format("step {}: the loss has spiked since step {}", state_.step, state_.spike.since);
  back.rewinds = after_going_back(state_.rewinds, to, taken);
  back.anticipated.clear();  // it was of other tokens
  // What is no state of the weights goes on: where it is in the data, what the run's first model said, how long and on
  // what it has been computed.
  back.position = state_.position;
  back.reference_log_probs = state_.reference_log_probs;
  back.seconds = state_.seconds;
  back.devices = std::move(state_.devices);
  state_ = std::move(back);
  stage_ = Standing::Stage::kBetween;
  saved_step_ = to;
  saved_figure_ = state_.held_out_loss.has_value();
  held_out_loss_.reset();
  held_out_pairs_.reset();
  record_ = {};
  refusals_ = Refusals(refusals_.steps(), 0);
  make_step();
  if (guard_) guard_->wrote();
  static_cast<void>(fault_point("step.restored"));
  beats_.step_done(state_.step);
  if (!first()) return {};
  progress_->note(
      fmt::format("rewind     {}; back to step {} ({}), time {} of {}: {} undone, whose {} tokens "
                  "of the data are "
                  "skipped",
                  why,
                  to,
                  path,
                  state_.rewinds.there,
                  settings_.train.rewinds,
                  counted(undone, "step is", "steps are"),
                  taken));
  if (const int64_t n = settings_.train.anticipatory_steps; n > 0)
    progress_->note(fmt::format(
        "anticipate steps {} to {} send their tokens to the experts that the weights of one step "
        "before chose",
        to + 2,
        to + 1 + n));
  TRY(forget_undone());
  return {};
}

/// Checkpoints and records of steps that are undone: rank 0's to do, also if it has taken the place of one that was to.
Result<void> TrainingRun::forget_undone() {
  const std::string& folder = settings_.checkpoint.dir;
  if (const Result<void> removed = remove_later_checkpoints(folder, state_.step); !removed)
    progress_->note("warning    " + removed.error().message);
  if (!metrics_) return {};
  if (const Result<void> kept = set_aside(folder, metrics_->metrics(), state_.step); !kept)
    progress_->note("warning    " + kept.error().message);
  return open_metrics();
}

/// Where some ranks have gone back and others have not heard it yet, these do it now: it was not begun before all had
/// made the step. `words` become what all would have said then.
Result<void> TrainingRun::go_back_with_others(std::vector<RankWord>& words) {
  const RankWord* ahead = nullptr;
  for (const RankWord& w : words)
    if (w.standing.stage != Standing::Stage::kNothing &&
        (ahead == nullptr || w.rewinds > ahead->rewinds))
      ahead = &w;
  if (ahead == nullptr) return {};
  const RankWord back = *ahead;
  for (int r = 0; r < place().ranks; ++r) {
    RankWord& w = words[static_cast<size_t>(r)];
    const bool behind = w.standing.stage != Standing::Stage::kNothing && w.rewinds < back.rewinds;
    if (behind && r == place().rank) TRY(go_back(back.rewound_to));
    if (behind) w = back;
  }
  // Who takes rank 0's place may find what its predecessor was about to remove.
  if (words.front().standing.stage == Standing::Stage::kNothing && back.rewinds > 0 &&
      words.front().saved_step > back.saved_step) {
    words.front().saved_step = back.saved_step;
    words.front().saved_figure = back.saved_figure;
  }
  return {};
}

}  // namespace ferry
