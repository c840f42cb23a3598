#include "train/config_check.h"

#include <nlohmann/json.hpp>

#include "base/calendar.h"
#include "train/config_field.h"

namespace ferry {
namespace {

/// An adapter is its base's: it has neither weights nor texts of its own.
Result<void> check_lora(const Settings& s, std::string_view name) {
  const auto refused = [&](std::string_view what) {
    return fail(Code::kInvalidInput, "{}: lora.rank is {}: {}", name, s.lora.rank, what);
  };
  if (s.model.init.empty()) return refused("model.init must name the model that is adapted");
  if (lora_targets(s.lora).empty())
    return refused("lora.target_modules is empty; it must name projections");
  if (s.checkpoint.weights != "f32")
    return refused("an adapter is stored in f32; checkpoint.weights must be \"f32\"");
  if (!s.checkpoint.chat_template.empty())
    return refused(
        "an adapter is asked by its base's chat template; leave checkpoint.chat_template out");
  return {};
}

Result<void> check_dates(const Settings& s, std::string_view name) {
  for (const auto& [key, day] : {std::pair{"rl.date", &s.rl.date}, {"dpo.date", &s.dpo.date}})
    if (!noon_of(*day))
      return fail(Code::kInvalidInput,
                  "{}: {} is {}; it must be a day, written as 2026-11-30",
                  name,
                  key,
                  settings::in_quotes(*day));
  return {};
}

Result<void> check_dpo(const Settings& s, std::string_view name) {
  const DpoSettings& d = s.dpo;
  if (d.pairs.empty()) {
    if (d.held_out.empty()) return {};
    return fail(Code::kInvalidInput,
                "{}: dpo.held_out is set, and dpo.pairs, what is learnt from, is not",
                name);
  }
  for (const auto& [key, set] :
       {std::pair{"data.dir", !s.data.dir.empty()}, std::pair{"rl.tasks", !s.rl.tasks.empty()}})
    if (set)
      return fail(Code::kInvalidInput,
                  "{}: dpo.pairs and {} are both set; a run learns from one of them: leave the "
                  "other out",
                  name,
                  key);
  if (s.model.init.empty())
    return fail(
        Code::kInvalidInput,
        "{}: model.init is not set; pairs are learnt by a model that answers, which is also "
        "their reference",
        name);
  if (d.label_smoothing > 0 && d.loss_type != "sigmoid" && d.loss_type != "robust")
    return fail(Code::kInvalidInput,
                "{}: dpo.label_smoothing is {}; dpo.loss_type {} has none: it must be 0",
                name,
                d.label_smoothing,
                d.loss_type);
  if (d.label_smoothing >= 0.5 && d.loss_type == "robust")
    return fail(Code::kInvalidInput,
                "{}: dpo.label_smoothing is {}; with dpo.loss_type robust it must be below 0.5",
                name,
                d.label_smoothing);
  return {};
}

/// Ranks are looked at a few times a second.
Result<void> check_hangs(const SupervisorSettings& s, std::string_view name) {
  if (s.hang_verdict_s > 0 && s.hang_verdict_s < 0.5)
    return fail(Code::kInvalidInput,
                "{}: supervisor.hang_verdict_s is {}; it must be 0 (never), or at least 0.5",
                name,
                s.hang_verdict_s);
  if (s.hang_patience_s > 0 && (s.hang_verdict_s <= 0 || s.hang_patience_s <= s.hang_verdict_s))
    return fail(Code::kInvalidInput,
                "{}: supervisor.hang_patience_s is {}; it must be 0 (never), or above "
                "supervisor.hang_verdict_s, {}, which must not be 0 then",
                name,
                s.hang_patience_s,
                s.hang_verdict_s);
  return {};
}

Result<void> check_schedule_of(const Settings& s, std::string_view name) {
  if (const Result<void> schedule = check_schedule(schedule_of(s)); !schedule)
    return fail(Code::kInvalidInput,
                "{}: [schedule] with train.steps = {}: {}",
                name,
                s.train.steps,
                schedule.error().message);
  return {};
}

}  // namespace

Result<void> check_data_named(const Settings& s, std::string_view name) {
  if (!s.data.dir.empty() || !s.rl.tasks.empty() || !s.dpo.pairs.empty()) return {};
  return fail(Code::kInvalidInput,
              "{}: data.dir is not set; it must name a folder that `ferry data prepare` wrote (or "
              "dpo.pairs a file of pairs of answers)",
              name);
}

Result<void> check_together(const Settings& s, std::string_view name) {
  const ModelSettings& m = s.model;
  const int sources = !m.preset.empty() + !m.config.empty() + !m.init.empty();
  if (sources > 1)
    return fail(
        Code::kInvalidInput,
        "{}: model.preset, model.config and model.init exclude each other; keep one of them",
        name);
  const nlohmann::ordered_json inline_fields = model_overrides(m);
  if (sources == 0 && inline_fields.empty())
    return fail(Code::kInvalidInput,
                "{}: no model: give model.preset, model.config, model.init or the hyper-parameters "
                "themselves",
                name);
  if (!m.init.empty() && !inline_fields.empty()) {
    std::string fields;
    for (const auto& [key, value] : inline_fields.items())
      fields += (fields.empty() ? "" : ", ") + key;
    return fail(
        Code::kInvalidInput,
        "{}: model.init brings its own architecture; leave it out, or all of [model] beside "
        "it: {}",
        name,
        fields);
  }
  const RopeScalingSettings& r = m.rope_scaling;
  const bool scaled = r.factor || r.beta_fast || r.beta_slow || r.mscale || r.mscale_all_dim ||
                      r.original_max_position_embeddings;
  if (scaled && !r.type)
    return fail(
        Code::kInvalidInput, "{}: [model.rope_scaling] has no type; it must be \"yarn\"", name);
  const RlSettings& p = s.rl;
  if (p.tasks.empty() != p.held_out.empty())
    return fail(Code::kInvalidInput,
                "{}: rl.tasks and rl.held_out go together; {} is not set",
                name,
                p.tasks.empty() ? "rl.tasks" : "rl.held_out");
  if (p.groups_per_step % p.minibatches != 0)
    return fail(Code::kInvalidInput,
                "{}: rl.groups_per_step is {}; it must be a multiple of rl.minibatches, {}",
                name,
                p.groups_per_step,
                p.minibatches);
  if (p.overlong_tokens > p.tokens_max)
    return fail(Code::kInvalidInput,
                "{}: rl.overlong_tokens is {}; it must not be above rl.tokens_max, {}",
                name,
                p.overlong_tokens,
                p.tokens_max);
  if (!p.tasks.empty() && m.init.empty())
    return fail(Code::kInvalidInput,
                "{}: model.init is not set; rl learns on from a model that answers",
                name);
  if (s.lora.rank > 0) TRY(check_lora(s, name));
  TRY(check_dates(s, name));
  TRY(check_dpo(s, name));
  if (s.checkpoint.dir.empty())
    return fail(Code::kInvalidInput,
                "{}: checkpoint.dir is empty; it must name the folder of the run",
                name);
  TRY(check_hangs(s.supervisor, name));
  const TrainSettings& t = s.train;
  if (!p.tasks.empty() && t.rewind_every > 0)
    return fail(Code::kInvalidInput,
                "{}: train.rewind_every is {}; a run that learns from tasks (rl.tasks) does not go "
                "back: it must be 0",
                name,
                t.rewind_every);
  if (t.anticipatory_steps > 0 && (t.rewind_every == 0 || !s.dpo.pairs.empty()))
    return fail(Code::kInvalidInput,
                "{}: train.anticipatory_steps is {}; {}: it must be 0",
                name,
                t.anticipatory_steps,
                t.rewind_every == 0
                    ? "they follow when the run goes back from a loss spike, and "
                      "train.rewind_every is 0"
                    : "routing is not anticipated for pairs of answers (dpo.pairs)");
  // Answers are as long as they are: neither sequence_length nor tokens_per_step is read.
  if (!p.tasks.empty() && s.data.dir.empty()) {
    const int64_t most = p.groups_per_step * p.group_size * p.tokens_max;
    if (t.steps > kRunTokensMax / most)
      return fail(Code::kInvalidInput,
                  "{}: train.steps is {} of rl.groups_per_step {} of rl.group_size {} answers of "
                  "rl.tokens_max {}; "
                  "together at most {} tokens",
                  name,
                  t.steps,
                  p.groups_per_step,
                  p.group_size,
                  p.tokens_max,
                  kRunTokensMax);
    return check_schedule_of(s, name);
  }
  if (t.micro_batch_tokens % s.data.sequence_length != 0)
    return fail(
        Code::kInvalidInput,
        "{}: train.micro_batch_tokens is {}; it must be a multiple of data.sequence_length, {}",
        name,
        t.micro_batch_tokens,
        s.data.sequence_length);
  if (!s.dpo.pairs.empty()) {  // which say themselves how large a step is
    const int64_t most = 2 * s.data.sequence_length * s.dpo.pairs_per_step;
    if (t.steps > kRunTokensMax / most)
      return fail(Code::kInvalidInput,
                  "{}: train.steps is {} of dpo.pairs_per_step {} of twice data.sequence_length "
                  "{}; together at "
                  "most {} tokens",
                  name,
                  t.steps,
                  s.dpo.pairs_per_step,
                  s.data.sequence_length,
                  kRunTokensMax);
    return check_schedule_of(s, name);
  }
  if (t.tokens_per_step % t.micro_batch_tokens != 0)
    return fail(
        Code::kInvalidInput,
        "{}: train.tokens_per_step is {}; it must be a multiple of train.micro_batch_tokens, {}",
        name,
        t.tokens_per_step,
        t.micro_batch_tokens);
  if (t.steps > kRunTokensMax / t.tokens_per_step)
    return fail(Code::kInvalidInput,
                "{}: train.steps is {} of train.tokens_per_step {}; together at most {} tokens",
                name,
                t.steps,
                t.tokens_per_step,
                kRunTokensMax);
  return check_schedule_of(s, name);
}

}  // namespace ferry
