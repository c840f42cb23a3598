#include "train/config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "train/config_field.h"

namespace ferry {

using namespace settings;

std::string print_settings(const Settings& settings, const nlohmann::ordered_json& base) {
  Settings shown = settings, defaults;
  const std::vector<Field> fields = fields_of(shown), fresh = fields_of(defaults);
  std::string out, section;
  for (size_t i = 0; i < fields.size(); ++i) {
    const Field& f = fields[i];
    if (section != f.section)
      out += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", section = f.section);
    const Value v = value_of(f), d = value_of(fresh[i]);
    std::string notes = kind_of(f) == Kind::kText && f.choices.empty() ? "" : allowed(f);
    if (*f.unit != 0) notes += fmt::format("; {}", f.unit);
    if (is_set(d) && v != d && d != Value(std::string()))
      notes += fmt::format("{}default {}", notes.empty() ? "" : "; ", text_of(d));
    // All of [model] is.
    if (f.change == Change::kFixed && section != "model" && section != "model.rope_scaling")
      notes += fmt::format("{}fixed once a run has begun", notes.empty() ? "" : "; ");
    out += notes.empty() ? fmt::format("# {}\n", f.meaning)
                         : fmt::format("# {} ({})\n", f.meaning, notes);
    if (is_set(v))
      out += fmt::format("{} = {}\n", f.key, text_of(v));
    else if (section == "model" && base.contains(f.key))
      out += fmt::format("# {} = {}   as model.{} has it\n",
                         f.key,
                         json_text(base[f.key]),
                         settings.model.preset.empty() ? "config" : "preset");
    else
      out += fmt::format("# {} is not set\n", f.key);
  }
  return out;
}

std::string print_settings(const Settings& settings) {
  return print_settings(settings, nlohmann::ordered_json::object());
}

nlohmann::ordered_json settings_json(const Settings& settings) {
  Settings copy = settings;
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  for (const Field& f : fields_of(copy)) {
    const Value value = value_of(f);
    if (!is_set(value)) continue;
    nlohmann::ordered_json* at = &out;
    std::string_view section = f.section;
    for (size_t dot; (dot = section.find('.')) != std::string_view::npos;
         section.remove_prefix(dot + 1))
      at = &(*at)[std::string(section.substr(0, dot))];
    std::visit(
        [&](const auto& v) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(v)>, std::monostate>)
            (*at)[std::string(section)][f.key] = v;
        },
        value);
  }
  return out;
}

nlohmann::ordered_json model_overrides(const ModelSettings& model) {
  Settings only;
  only.model = model;
  nlohmann::ordered_json out = settings_json(only)["model"];
  for (const char* source : {"preset", "config", "init"}) out.erase(source);
  if (model.q_lora_rank == 0) out["q_lora_rank"] = nullptr;
  return out;
}

std::vector<SettingChange> changed_settings(const Settings& was, const Settings& now) {
  Settings a = was, b = now;
  const std::vector<Field> before = fields_of(a), after = fields_of(b);
  std::vector<SettingChange> changes;
  for (size_t i = 0; i < before.size(); ++i) {
    const Value x = value_of(before[i]), y = value_of(after[i]);
    if (x != y) changes.push_back({before[i].path(), text_of(x), text_of(y), before[i].change});
  }
  return changes;
}

std::vector<std::string> lora_targets(const LoraSettings& lora) {
  std::vector<std::string> names;
  std::string_view rest = lora.target_modules;
  constexpr std::string_view kBetween = ", \t";
  while (true) {
    const size_t begin = rest.find_first_not_of(kBetween);
    if (begin == rest.npos) return names;
    const size_t end = std::min(rest.find_first_of(kBetween, begin), rest.size());
    names.emplace_back(rest.substr(begin, end - begin));
    rest.remove_prefix(end);
  }
}

Schedule schedule_of(const Settings& s) {
  const ScheduleSettings& h = s.schedule;
  const auto fraction =
      static_cast<int64_t>(std::floor(h.decay_fraction * static_cast<double>(s.train.steps)));
  return {.kind = h.kind == "cosine" ? Schedule::Kind::kCosine : Schedule::Kind::kWsd,
          .decay = h.decay == "linear" ? Schedule::Decay::kLinear : Schedule::Decay::kOneMinusSqrt,
          .steps = s.train.steps,
          .warmup_steps = h.warmup_steps,
          .decay_steps = h.decay_steps.value_or(fraction),
          .lr = s.optimizer.lr,
          .min_ratio = h.min_ratio};
}

OptimizerSettings optimizer_of(const Settings& s) {
  const OptimizerConfig& o = s.optimizer;
  return {
      .kind = o.kind == "muon" ? OptimizerSettings::Kind::kMuon : OptimizerSettings::Kind::kAdamW,
      .beta1 = o.beta1,
      .beta2 = o.beta2,
      .eps = o.eps,
      .weight_decay = o.weight_decay,
      .decay_all = o.decay_all,
      .muon_momentum = o.muon_momentum,
      .muon_update_rms = o.muon_update_rms,
      .muon_lift_steps = static_cast<int>(o.muon_lift_steps),
      .muon_converge_steps = static_cast<int>(o.muon_converge_steps)};
}

}  // namespace ferry
