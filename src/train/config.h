// The settings of a training run: one list of fields (name, default, unit, bounds, meaning) from
// which come reading TOML, overriding on the command line, printing, JSON and what changed on
// resume.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "train/supervisor.h"

namespace ferry {

/// [model.rope_scaling], the names of config.json. Absent unless `type` is given.
struct RopeScalingSettings {
  std::optional<std::string> type;
  std::optional<double> factor, beta_fast, beta_slow, mscale, mscale_all_dim;
  std::optional<int64_t> original_max_position_embeddings;
};

/// [model]: where the model comes from, and what of its architecture is given here. A
/// hyper-parameter that is not given comes from the preset or the config.json.
struct ModelSettings {
  std::string preset;  // at most one of these three
  std::string config;
  std::string init;
  /// What model.config held when the run's settings were read (train/run_texts.h); nothing: it is read
  /// where it is needed.
  std::optional<std::string> config_text = {};
  /// The state of model.init's files then (state_of_init): a run begins with one model, however often
  /// its worker has to begin. Nothing: it was not looked at.
  std::optional<std::string> init_state = {};
  std::optional<int64_t> vocab_size, hidden_size, intermediate_size, moe_intermediate_size,
      num_hidden_layers, num_nextn_predict_layers, num_attention_heads, q_lora_rank, kv_lora_rank,
      qk_nope_head_dim, qk_rope_head_dim, v_head_dim, first_k_dense_replace, moe_layer_freq,
      n_routed_experts, n_shared_experts, num_experts_per_tok, n_group, topk_group,
      max_position_embeddings;
  std::optional<double> routed_scaling_factor, rms_norm_eps, rope_theta, initializer_range;
  std::optional<bool> norm_topk_prob, tie_word_embeddings;
  std::optional<std::string> topk_method, scoring_func;
  RopeScalingSettings rope_scaling;
};

struct DataSettings {
  std::string dir;
  std::string format = "auto";
  int64_t sequence_length = 512;
};

struct TrainSettings {
  int64_t steps = 1000;
  int64_t tokens_per_step = 8192;
  int64_t micro_batch_tokens = 4096;
  int64_t seed = 1;
  std::string compute = "bf16";
  std::string mla_form = "expanded";
  std::string recompute = "cheap";
  std::string device = "cpu";
  int64_t threads = 0;
  double clip = 1;
  double mtp_weight = 0.3;
  int64_t mtp_every = 1;
  double balance_alpha = 1e-4;
  double bias_update_speed = 1e-3;
  int64_t evaluate_every = 100;
  int64_t evaluate_tokens = 262144;
  double skip_loss_z = 0;
  double skip_gradient_z = 0;
  std::string corruption_checks = "sample";
  int64_t audit_every = 64;
  int64_t rewind_every = 0;
  int64_t rewind_after = 5;
  double rewind_loss_z = 0;
  int64_t rewinds = 3;
  int64_t anticipatory_steps = 0;
};

/// [rl]: what `ferry rl` learns from, and how.
struct RlSettings {
  std::string tasks;
  std::string held_out;
  int64_t groups_per_step = 16;
  int64_t group_size = 16;
  int64_t minibatches = 1;
  int64_t tokens_max = 256;
  int64_t running = 64;
  double clip_low = 0.2;
  double clip_high = 0.2;
  std::string kl = "none";
  double kl_weight = 0.001;
  int64_t reference_every = 0;
  std::string advantage = "deviation";
  std::string normalise = "token";
  int64_t dynamic_sampling = 0;
  int64_t overlong_tokens = 0;
  double off_policy_mask = 0;
  bool keep_routing = false;
  std::string rollout_device;
  double importance_cap = 2;
  double mismatch_max = 0.01;
  double reward_answer = 1;
  double reward_format = 0;
  double reward_script = 0;
  std::string script = "Latin";
  std::string program;
  std::string program_folder;
  double program_seconds = 10;
  int64_t program_memory_mb = 512;
  int64_t evaluate_tasks = 256;
  std::string date = "2026-01-01";
};

/// [dpo]: pairs of answers that `ferry train` learns from in place of data.dir, and how. The names are TRL's where it
/// has the setting.
struct DpoSettings {
  std::string pairs;
  std::string held_out;
  int64_t pairs_per_step = 16;
  std::string loss_type = "sigmoid";
  double beta = 0.1;
  double label_smoothing = 0;
  double rpo_alpha = 0;
  int64_t skip_bad = 0;
  std::string date = "2026-01-01";
};

/// [lora]: low-rank adaptation. The names are PEFT's, but for the rank.
struct LoraSettings {
  int64_t rank = 0;  // 0: the weights are trained, whole
  double alpha = 16;
  std::string target_modules = "all-linear";
  bool use_rslora = false;
};

struct ScheduleSettings {
  std::string kind = "wsd";
  std::string decay = "1-sqrt";
  int64_t warmup_steps = 100;
  double decay_fraction = 0.2;
  std::optional<int64_t> decay_steps;
  double min_ratio = 0;
};

struct OptimizerConfig {
  std::string kind = "adamw";
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  bool decay_all = false;
  double muon_momentum = 0.95;
  double muon_update_rms = 0.18;
  int64_t muon_lift_steps = 8;
  int64_t muon_converge_steps = 2;
};

struct CheckpointSettings {
  std::string dir = "run";
  int64_t every = 100;
  int64_t keep_last = 2;
  bool keep_best = true;
  std::string weights = "f32";
  std::string key;
  std::string chat_template;
  // What they held, the key in hex, when the run's settings were read (train/run_texts.h).
  std::optional<std::string> secret_key = {};
  std::optional<std::string> chat_template_text = {};
};

struct LogSettings {
  int64_t every = 10;
  std::string colour = "auto";
  bool tensorboard = true;
  bool curve = true;
};

/// What of supervisor::Settings a person may set: how long a silent worker is taken to be at work,
/// phase by phase.
struct SupervisorSettings {
  int64_t restarts = supervisor::Settings{}.failures_max;
  double start_patience_s = supervisor::Settings{}.start_patience_s;
  double step_patience_s = supervisor::Settings{}.step_patience_s;
  double evaluate_patience_s = supervisor::Settings{}.evaluate_patience_s;
  double save_patience_s = supervisor::Settings{}.save_patience_s;
  double patience_intervals = supervisor::Settings{}.patience_intervals;
  double hang_verdict_s = supervisor::Settings{}.hang_verdict_s;
  double hang_patience_s = supervisor::Settings{}.hang_patience_s;
  double stop_patience_s = supervisor::Settings{}.stop_patience_s;
};

/// Tokens of a whole run. Places in the data are counted in them, and written to JSON, which is exact
/// to there.
constexpr int64_t kRunTokensMax = int64_t{1} << 53;

struct Settings {
  ModelSettings model;
  DataSettings data;
  TrainSettings train;
  RlSettings rl;
  DpoSettings dpo;
  LoraSettings lora;
  OptimizerConfig optimizer;
  ScheduleSettings schedule;
  CheckpointSettings checkpoint;
  LogSettings log;
  SupervisorSettings supervisor;
};

constexpr uint64_t kSettingsBytesMax = 1 << 20;
constexpr uint64_t kConfigJsonBytesMax = 1 << 20;

/// Reads TOML text; `name` is what messages call it. `overrides` ("train.steps=300", with or without
/// "--") win over the text. Everything is checked, each field alone and all together.
/// Errors: kInvalidInput: "NAME:LINE: section.key is ...; it must be ..." with the nearest known
/// key for an unknown one.
Result<Settings> parse_settings(std::string_view toml,
                                std::string_view name,
                                std::span<const std::string> overrides = {});

/// What a checkpoint or a passport holds: settings that were taken once, also where nobody may give them any more.
/// Errors: as parse_settings.
Result<Settings> parse_stored_settings(std::string_view toml, std::string_view name);

/// parse_settings() of a file of at most 1 MiB. Errors also: kNotFound, kUnavailable.
Result<Settings> read_settings(const std::string& path,
                               std::span<const std::string> overrides = {});

/// TOML of every field with its meaning, unit, bounds and default; parses back to equal settings.
/// `base`: the architecture that a preset or a config.json gives, shown where a field is not set.
std::string print_settings(const Settings& settings, const nlohmann::ordered_json& base);
std::string print_settings(const Settings& settings);

/// Every field that is set, by section.
nlohmann::ordered_json settings_json(const Settings& settings);

/// The hyper-parameters given in [model] under config.json's names ("rope_scaling" nested), to be
/// laid over a preset or a config.json. q_lora_rank 0 becomes null, as config.json has it.
nlohmann::ordered_json model_overrides(const ModelSettings& model);

/// What may become of a setting when a run goes on.
enum class Change {
  kFree,     // what is learnt does not depend on it: changed without a word
  kFollows,  // what follows depends on it: told
  kFixed     // what was learnt depends on it: refused
};

struct SettingChange {
  std::string key;       // "train.steps"
  std::string was, now;  // "not set" where it is not
  Change change = Change::kFollows;
};

/// What differs, in the order of the list of fields.
std::vector<SettingChange> changed_settings(const Settings& was, const Settings& now);

/// The names in lora.target_modules, which commas or blanks part.
std::vector<std::string> lora_targets(const LoraSettings& lora);

/// The same numbers as the modules below know them. The settings have been checked.
Schedule schedule_of(const Settings& settings);
OptimizerSettings optimizer_of(const Settings& settings);

}  // namespace ferry
