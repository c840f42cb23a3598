// What a training run does when another of its ranks is lost, and how a successor takes that one's place: by what
// recovery_plan.h says of where all of them stand.
#include <algorithm>
#include <type_traits>
#include <utility>

#include "train/run_begin.h"
#include "train/run_save.h"
#include "train/training_run.h"

namespace ferry {

using supervisor::Work;

namespace {

/// What a rank cannot have from the others it cannot go on without.
template <typename T>
T or_lost(Result<T> result) {
  if (!result) throw StateLost(result.error().message);
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

}  // namespace

/// This process takes the place of a rank that is gone: it reads its data, the rest the others have.
Result<void> TrainingRun::take_place() {
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
Result<void> TrainingRun::recover(comm::LinkError why) {
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
comm::LinkError TrainingRun::no_other_meeting(const comm::LinkError& why, const Status& met) const {
  return {place().rank,
          why.peer(),
          met.code == Code::kUnavailable,
          fmt::format("{}; and the ranks cannot meet again: {}", why.what(), met.message)};
}

/// Everybody comes to stand after the same step, the successors too. May be cut short anywhere by another rank's end,
/// and begun again: what it changes of a rank it changes together with where that one says it stands.
Result<void> TrainingRun::settle() {
  agreements_ = 0;
  if (step_) step_->look_at_own();
  std::vector<RankWord> words = or_lost(exchange_words(*ranks(), word(), kForever));
  TRY(go_back_with_others(words));
  std::vector<Standing> standings;
  for (const RankWord& w : words) standings.push_back(w.standing);
  const RecoveryPlan plan = or_lost(plan_recovery(standings));
  take_model(plan);
  if (const std::optional<std::vector<double>> squares = shared_->pass_on(plan))
    decide(step_->commit(*squares));
  else if (stage_ == Standing::Stage::kPrepared)
    stage_ = Standing::Stage::kBetween;  // nothing of the step has changed anything
  shared_->give(plan, *optimizer_);
  // What was given is believed when all who gave have found that they still hold what they did.
  if (guard_) {
    step_->look_at_own();
    static_cast<void>(
        comm::any_of(*ranks(), {comm::Purpose::kHashes, plan.done, 3}, false, kForever));
  }
  if (plan.behind[static_cast<size_t>(place().rank)]) TRY(end_step());
  give_untrained(plan);
  take_carried(plan);
  TRY(adopt(plan, words));
  if (fresh() && first() && state_.rewinds.count > 0) {
    name_undone(state_.step);
    set_undone_aside();
  }
  agree_again();
  if (guard_) guard_->wrote();
  // Only when all are there is a successor somebody to hear of the step from: until then another loss makes it begin
  // again.
  stage_ = Standing::Stage::kBetween;
  beats_.step_done(state_.step, state_.rewinds.count);
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
RankWord TrainingRun::word() const {
  RankWord mine{.standing = {.stage = stage_, .done = state_.step},
                .saved_step = saved_step_,
                .saved_figure = saved_figure_,
                .held_out = held_out_loss_,
                .rewinds = state_.rewinds.count,
                .rewound_to = state_.rewinds.to};
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

void TrainingRun::take_model(const RecoveryPlan& plan) {
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
void TrainingRun::give_untrained(const RecoveryPlan& plan) {
  if (!adapter_) return shared_->give_untrained(plan, model_->weights());
  if (fresh()) adapter_->merge();
}

/// The last thing that a successor needs.
void TrainingRun::take_carried(const RecoveryPlan& plan) {
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
Result<void> TrainingRun::adopt(const RecoveryPlan& plan, const std::vector<RankWord>& words) {
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
void TrainingRun::agree_again() {
  const Result<Identity> mine = identity_of(settings_, data_, *model_, state_, *optimizer_);
  Readiness readiness;
  if (mine)
    readiness.identity = *mine;
  else
    readiness.prepared = tl::unexpected(mine.error());
  or_lost(agree(*ranks(), agreements_++, readiness, kForever).all);
}

}  // namespace ferry
