// How a training run goes back from a loss spike to a checkpoint from before it (the rules: spike.h), and goes on
// behind the data that the spike was met in: alone, or with all other ranks.
//
// Nothing of it depends on who was killed meanwhile. A run that is begun again between the spike and the next
// checkpoint trains the same steps again, meets the same spike, and goes back to the same place.
#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/alive.h"
#include "base/clock.h"
#include "base/counted.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/os_error.h"
#include "checkpoint/checksums.h"
#include "checkpoint/undone_checkpoints.h"
#include "train/flip_point_in.h"
#include "train/run_save.h"
#include "train/training_run.h"

namespace ferry {
namespace {

// A disk that does not answer may do so a moment later; whoever goes back further instead trains another model.
constexpr int kTries = 3;
constexpr double kPauseS = 1;

/// What a rank says of a checkpoint that the run would go back to.
/// One that is told to stop does not wait for a disk that may answer the next moment.
enum class Sight : int64_t { kWhole, kDamaged, kUnreadable, kStopping };

/// Every byte of it, before anything is changed.
Result<void> check_place(const std::string& path,
                         int64_t step,
                         const RunData& data,
                         const Rewinds& rewinds) {
  TRY_ASSIGN(Checksums sums, Checksums::open(path));
  TRY(sums.check_all());
  TRY_ASSIGN(const Resumed there,
             read_run({.step = step, .path = path, .held_out_loss = {}}, data));
  if (there.state.step != step)
    return fail(
        Code::kCorrupt, "{}: is of step {}; was the folder renamed?", path, there.state.step);
  if (is_undone(step, there.state.rewinds.places, rewinds.places))
    return fail(Code::kNotFound, "{}: is what was undone, and not set aside yet", path);
  return {};
}

}  // namespace

/// With other ranks everybody has made the step when this goes on: nobody is left who would need the step's sums.
Result<void> TrainingRun::go_back_if_due() {
  if (!goes_back(state_.spike, state_.step, settings_.train)) return {};
  const bool any = before_spike(state_.spike, state_.step, settings_.train) > 0;
  TRY_ASSIGN(const std::optional<int64_t> found,
             any ? agreed_place() : Result<std::optional<int64_t>>(0));
  if (!found) return {};  // whoever goes on with the run goes back
  const int64_t to = *found;
  const int64_t lasted = state_.step - state_.spike.since + 1;
  if (to == 0) {
    const bool told = std::exchange(told_of_no_place_, state_.spike.since) == state_.spike.since;
    if (!told)
      progress_->note(fmt::format(
          "warning    step {}: the loss has spiked for {}, and there is no checkpoint from before "
          "that to go back to: of step {} at least, and at a multiple of train.rewind_every",
          state_.step,
          counted(lasted, "step", "steps"),
          settings_.train.rewind_every));
    return {};
  }
  if (has_gone_back_enough(state_.rewinds, to, settings_.train))
    return fail(
        Code::kVerdict,
        "step {}: the loss has spiked for {} once more, after the run had gone back {} to step {} "
        "or to one before it; its checkpoint is in {}. Look at {} {} to {} of the data, lower "
        "optimizer.lr, raise schedule.warmup_steps, or raise train.rewinds, and go on with "
        "--resume",
        state_.step,
        counted(lasted, "step", "steps"),
        counted(state_.rewinds.there, "time", "times"),
        state_.rewinds.furthest,
        settings_.checkpoint.dir,
        of_pairs() ? "pairs" : "tokens",
        state_.spike.from,
        place_in_data());
  TRY(go_back(to));
  return compare_what_was_read();
}

/// Where in its data the next step begins.
int64_t TrainingRun::place_in_data() const {
  return of_pairs() ? state_.position : state_.tokens + state_.rewinds.skipped_tokens;
}

/// Of the checkpoints that rank 0 sees, the first one that every rank can read. 0: there is none; nothing: some
/// rank is to stop, and does not know.
Result<std::optional<int64_t>> TrainingRun::agreed_place() {
  std::vector<int64_t> places;
  if (first()) {
    // What lies there may be another run's by now.
    TRY(stay_in_run_folder(
        settings_.checkpoint.dir, *folder_, *metrics_, [this](const std::string& text) {
          progress_->note(text);
        }));
    TRY_ASSIGN(const std::vector<int64_t> there, step_folders(settings_.checkpoint.dir));
    places = places_before(state_.spike, state_.step, there, settings_.train);
    const int64_t last = before_spike(state_.spike, state_.step, settings_.train);
    if (!places.empty() && places.front() != last)
      progress_->note(
          fmt::format("warning    step {} cannot be gone back to: {} is not there; an older one is",
                      last,
                      checkpoint_path(settings_.checkpoint.dir, last)));
  }
  static_cast<void>(fault_point("step.rewind"));
  begin_step();  // what is waited for is another rank's step
  std::string unreadable;
  for (size_t n = 0;; ++n) {
    // Rank 0's is what counts: the others have none to offer.
    const int64_t step = all_say(n < places.size() ? places[n] : 0, 2 * n).front();
    if (step == 0) break;
    const std::string path = checkpoint_path(settings_.checkpoint.dir, step);
    const Result<void> mine = look_at_place(path, step);
    const Sight sight = mine                           ? Sight::kWhole
                        : is_damage(mine.error().code) ? Sight::kDamaged
                        : told_to_stop()               ? Sight::kStopping
                                                       : Sight::kUnreadable;
    const std::vector<int64_t> sights = all_say(static_cast<int64_t>(sight), 2 * n + 1);
    const auto worst = std::max_element(sights.begin(), sights.end());
    if (static_cast<Sight>(*worst) == Sight::kWhole) {
      static_cast<void>(fault_point("step.rewound"));
      return step;
    }
    if (static_cast<Sight>(*worst) == Sight::kStopping) return std::nullopt;
    const std::string why =
        mine ? fmt::format("{}: rank {} cannot read it", path, worst - sights.begin())
             : mine.error().message;
    if (static_cast<Sight>(*worst) == Sight::kUnreadable) unreadable = why;
    if (told_of_no_place_ != state_.spike.since)
      progress_->note(fmt::format(
          "warning    step {} cannot be gone back to: {}; an older one is looked for", step, why));
  }
  if (unreadable.empty()) return std::optional<int64_t>(0);
  // It may be there when a worker that follows comes to the same spike.
  return fail(Code::kUnavailable, "{}; and no older checkpoint can be gone back to", unreadable);
}

/// Everybody's number, by rank; `round`: how often it is asked for.
std::vector<int64_t> TrainingRun::all_say(int64_t mine, size_t round) {
  if (ranks() == nullptr) return {mine};
  const std::vector<int64_t> one = {mine};
  const std::vector<size_t> sizes(static_cast<size_t>(place().ranks), sizeof mine);
  std::vector<int64_t> all;
  for (const std::vector<std::byte>& bytes :
       comm::all_gather(*ranks(),
                        {comm::Purpose::kRewind, state_.step, static_cast<uint32_t>(round)},
                        comm::bytes_of(one),
                        sizes,
                        kForever))
    std::memcpy(&all.emplace_back(), bytes.data(), sizeof mine);
  return all;
}

/// Errors: what it is damaged by; what it cannot be read for, although it was tried some times.
Result<void> TrainingRun::look_at_place(const std::string& path, int64_t step) {
  if (const auto known = damaged_.find(step); known != damaged_.end())
    return tl::unexpected(known->second);
  for (int tries = 1;; ++tries) {
    const int error = fault_point("step.look");
    Result<void> whole =
        error != 0 ? os_error("read", path, error) : check_place(path, step, data_, state_.rewinds);
    if (whole) return whole;
    if (is_damage(whole.error().code)) damaged_.emplace(step, whole.error());
    if (is_damage(whole.error().code) || tries == kTries || told_to_stop()) return whole;
    still_alive();
    sleep_s(kPauseS);
  }
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
  flip_restored();
  if (guard_) guard_->wrote();
  // What failed may be behind this place once more.
  if (options_.replay_to > state_.step) device_->set_replay(true);
  static_cast<void>(fault_point("step.restored"));
  beats_.step_done(state_.step, state_.rewinds.count);
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
  name_undone(to);
  set_undone_aside();
  if (metrics_) tell(metrics_->go_back(to, clock_));
  return {};
}

/// Each rank has read the checkpoint for itself: all are to have the same, as before the first step.
Result<void> TrainingRun::compare_what_was_read() {
  if (ranks() == nullptr) return {};
  if (guard_) guard_->compare(state_.step);
  agree_again();
  return {};
}

/// For tests: a rank reads something else than the others.
void TrainingRun::flip_restored() {
  if (!faults_armed()) return;
  std::vector<Tensor> values;
  for (const Weight* w : model_->weights()) values.push_back(w->value);
  flip_point_in("flip.restored", values);
}

/// What lies in the places of later steps is undone, whatever it is. Once, before the run saves any such step again.
void TrainingRun::name_undone(int64_t after) {
  const Result<std::vector<int64_t>> there = step_folders(settings_.checkpoint.dir);
  if (!there) return;  // set_undone_aside() tells that, and finds those that are whole
  undone_.insert(std::upper_bound(there->begin(), there->end(), after), there->end());
}

/// Also those that say themselves that they are undone: whoever follows this process finds them by that. Rank 0's to
/// do. A disk that does not let it ends no run: it is tried again before the next save.
void TrainingRun::set_undone_aside() {
  const std::string& folder = settings_.checkpoint.dir;
  const auto move = [&]() -> Result<std::vector<std::string>> {
    TRY_ASSIGN(const CheckpointList there, list_checkpoints(folder));
    for (const auto& list : {there.complete, there.undone})
      for (const CheckpointInfo& c : list)
        if (is_undone(c.step, c.rewound, state_.rewinds.places)) undone_.insert(c.step);
    return set_aside(folder, undone_);
  };
  const Result<std::vector<std::string>> moved = move();
  if (moved) undone_.clear();
  if (!moved)
    progress_->note(
        fmt::format("warning    checkpoints of steps that are undone are not set aside yet: {}",
                    moved.error().message));
  else if (!moved->empty())
    progress_->note(fmt::format("undone     {} in {} now",
                                counted(std::ssize(*moved), "checkpoint is", "checkpoints are"),
                                join_path(folder, kUndoneFolder)));
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
  // Who takes rank 0's place may find what its predecessor was about to set aside.
  if (words.front().standing.stage == Standing::Stage::kNothing && back.rewinds > 0 &&
      words.front().saved_step > back.saved_step) {
    words.front().saved_step = back.saved_step;
    words.front().saved_figure = back.saved_figure;
  }
  return {};
}

}  // namespace ferry
