#include "cli/rehearse_run.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "adapter/trained_adapter.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/weights.h"
#include "device/tensor_products.h"
#include "engine/engine.h"
#include "models/registry.h"
#include "ops/pair_linear/pair_linear.h"
#include "ops/token_log_probs/token_log_probs.h"
#include "optim/optimizer.h"
#include "probe/directory_model.h"
#include "rl/policy_step.h"
#include "train/model_setup.h"
#include "train/preferences.h"
#include "train/train_step.h"
#include "verify/checks.h"

namespace ferry::cli {
namespace {

/// config.json of DeepSeek-V3 and of DeepSeek-V2-Lite: the fields that say a size.
constexpr const char* kV3 =
    R"({"model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "num_hidden_layers": 61,
 "num_nextn_predict_layers": 1, "first_k_dense_replace": 3, "intermediate_size": 18432,
 "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
 "n_group": 8, "topk_group": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true,
 "routed_scaling_factor": 2.5, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536,
 "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
 "max_position_embeddings": 163840, "rms_norm_eps": 1e-06, "rope_theta": 10000, "rope_scaling": {"type": "yarn",
 "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
 "original_max_position_embeddings": 4096}, "bos_token_id": 0, "eos_token_id": 1})";
constexpr const char* kV2Lite =
    R"({"model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048, "num_hidden_layers": 27,
 "first_k_dense_replace": 1, "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64,
 "n_shared_experts": 2, "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1, "topk_method": "greedy",
 "scoring_func": "softmax", "norm_topk_prob": false, "routed_scaling_factor": 1.0, "num_attention_heads": 16,
 "num_key_value_heads": 16, "q_lora_rank": null, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
 "qk_rope_head_dim": 64, "v_head_dim": 128, "max_position_embeddings": 163840, "rms_norm_eps": 1e-06,
 "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
 "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096}, "bos_token_id": 100000,
 "eos_token_id": 100001})";

struct Run {
  Settings settings;
  std::string config_json;
  std::string config_name;  // for messages
  /// What generating keeps matrices as; of a directory, what it stores decides.
  DType kept = DType::kF32;
  std::unique_ptr<ModelSource> directory = nullptr;
};

/// The default settings, with documents of 4,096 tokens: nothing says how such a model is trained.
Settings usual_settings() {
  Settings s;
  s.data.sequence_length = 4096;
  return s;
}

/// The settings with which the directory's passport says that it was trained, or the usual ones.
Result<Run> run_of_directory(const std::string& path) {
  TRY_ASSIGN(ModelDir opened, ModelDir::open(path));
  auto dir = std::make_unique<ModelDir>(std::move(opened));
  Run run{.settings = usual_settings(),
          .config_json = dir->config_json(),
          .config_name = join_path(path, kConfigName)};
  if (const Passport* passport = dir->passport(); passport != nullptr && passport->training) {
    TRY_ASSIGN(run.settings, parse_stored_settings(passport->training->settings, path));
  }
  run.directory = std::move(dir);
  return run;
}

/// What tokenizer there will be is not known yet: without a vocabulary's size, DeepSeek-V3's.
Result<Run> run_of_settings(const std::string& path) {
  TRY_ASSIGN(Settings settings, read_settings(path));
  constexpr int32_t kVocabulary = 129280;
  RunData data;
  data.eos = 1;
  data.vocab_size = settings.model.init.empty() && settings.model.config.empty()
                        ? static_cast<int32_t>(settings.model.vocab_size.value_or(kVocabulary))
                        : 0;
  const std::string manifest = join_path(settings.data.dir, data::kManifestFile);
  if (!settings.data.dir.empty() && path_exists(manifest)) {
    TRY_ASSIGN(data, RunData::announced(settings.data.dir));
  }
  std::optional<InitModel> init;
  if (!settings.model.init.empty()) {
    TRY_ASSIGN(init, InitModel::open(settings.model.init));
  }
  TRY_ASSIGN(
      const std::string config,
      resolve_config(settings.model, init ? &*init : nullptr, data, settings.data.sequence_length));
  return Run{.settings = settings,
             .config_json = config,
             .config_name = path,
             .kept = stored_matrices_of(settings.checkpoint)};
}

Result<Run> run_of(const std::string& name) {
  const auto published = [&](const char* config, DType kept) {
    return Run{
        .settings = usual_settings(), .config_json = config, .config_name = name, .kept = kept};
  };
  if (name == "v3") return published(kV3, DType::kF8E4M3);
  if (name == "v2-lite") return published(kV2Lite, DType::kBF16);
  if (is_folder(name)) return run_of_directory(name);
  std::error_code none;
  if (path_exists(name) && !std::filesystem::is_regular_file(name, none))
    return fail(Code::kInvalidInput,
                "--for {}: is not a regular file, and each process of the examination reads it: "
                "write it to a file first",
                name);
  if (path_exists(name)) return run_of_settings(name);
  return fail(Code::kNotFound,
              "--for {}: is no model directory and no file of settings; or give v3 or v2-lite",
              name);
}

/// A micro-batch of whole sequences; the last may be shorter.
data::Batch batch_of(int64_t tokens, int64_t sequence) {
  data::Batch b;
  b.tokens.assign(static_cast<size_t>(tokens), 0);
  b.next = b.labels = b.mtp_labels = b.tokens;
  for (int64_t at = 0; at < tokens; at += sequence)
    b.segment_lengths.push_back(static_cast<int32_t>(std::min(sequence, tokens - at)));
  b.label_bytes = tokens;
  return b;
}

/// A pass that scores: without a tape, as held-out text is scored.
void score(models::CausalLm& model, const data::Batch& b) {
  const Shape shape = {std::ssize(b.tokens)};
  const Tensor hidden = model.forward(Tensor::from_i32(b.tokens, shape, model.device()),
                                      ops::Segments::packed(b.segment_lengths, model.device()),
                                      {},
                                      nullptr);
  static_cast<void>(model.token_losses(hidden, Tensor::from_i32(b.labels, shape, model.device())));
}

void learn_from_text(models::TrainableLm& model, TrainStep& step, const Settings& s) {
  // The first micro-batch, one that adds to its gradients, and the shorter one at the end: the
  // others' calls are the second's again.
  const int64_t tokens = s.train.tokens_per_step, most = s.train.micro_batch_tokens;
  std::vector<data::Batch> batches(static_cast<size_t>(std::min<int64_t>(tokens / most, 2)),
                                   batch_of(most, s.data.sequence_length));
  if (tokens % most != 0) batches.push_back(batch_of(tokens % most, s.data.sequence_length));
  step.gradients(s.train.mtp_every, batches);  // a step that runs the MTP modules, too
  step.update(s.optimizer.lr);
  score(model, batch_of(most, s.data.sequence_length));
}

/// Two lengths, as an answer and another one to the same question have: a micro-batch of them is seldom full.
std::pair<int64_t, int64_t> unlike(int64_t longest) {
  return {longest, std::max<int64_t>(1, longest - longest / 3)};
}

/// The file of pairs is not read.
void learn_from_pairs(models::TrainableLm& model, TrainStep& step, const Settings& s) {
  const auto lesson = [](int64_t length) {
    text::Lesson l{
        .ids = std::vector<int32_t>(static_cast<size_t>(std::max<int64_t>(2, length)), 0),
        .learnt = {}};
    for (size_t i = 0; i < l.ids.size(); ++i) l.learnt.push_back(i >= (l.ids.size() + 1) / 2);
    return l;
  };
  const auto [longest, shorter] = unlike(s.data.sequence_length);
  constexpr size_t kScoredAtOnce = 8;
  // As of text: a micro-batch, one that adds to its gradients, and the shorter one at the end.
  DpoSettings dpo = s.dpo;
  dpo.pairs_per_step =
      std::min(dpo.pairs_per_step, 2 * (s.train.micro_batch_tokens / (longest + shorter) + 1) + 1);
  Preferences preferences(
      dpo,
      s.train,
      std::vector<PreferencePair>(
          kScoredAtOnce,
          PreferencePair{.chosen = {lesson(longest)}, .rejected = {lesson(shorter)}}),
      {});
  std::vector<float> reference;
  preferences.add_reference(model, reference, [](int64_t) { return true; });
  preferences.set_reference(Tensor::from_f32(reference, {std::ssize(reference)}, model.device()));
  preferences.gradients(model, step, 0, [] {});
  step.update(s.optimizer.lr);
}

/// Tokens of a prompt and its answer; the tasks are not read.
std::pair<int64_t, int64_t> asked_and_answered(const models::CausalLm& model, const Settings& s) {
  const int64_t answer = std::clamp<int64_t>(s.rl.tokens_max, 1, model.max_positions() - 1);
  return {std::min(s.data.sequence_length, model.max_positions() - answer), answer};
}

void learn_from_answers(models::TrainableLm& model, TrainStep& step, const Settings& s) {
  const auto [asked, answered] = asked_and_answered(model, s);
  const auto [longest, shorter] = unlike(answered);
  const rl::TaskPrompt prompt{.ids = std::vector<int32_t>(static_cast<size_t>(asked), 0)};
  const auto rollout = [](int64_t tokens) {
    return rl::Rollout{.tokens = std::vector<int32_t>(static_cast<size_t>(tokens), 0),
                       .log_probs = std::vector<float>(static_cast<size_t>(tokens), 0),
                       .text = {}};
  };
  const rl::Rollout answers[] = {rollout(longest), rollout(shorter)};
  // Of each minibatch a micro-batch, one that adds to its gradients, and the shorter one at the end.
  const int64_t minibatches = std::min<int64_t>(s.rl.minibatches, 2),
                all = s.rl.groups_per_step * s.rl.group_size / s.rl.minibatches,
                each = std::min(all, 2 * (s.train.micro_batch_tokens / (asked + shorter) + 1) + 1);
  std::vector<rl::Lesson> lessons;
  for (int64_t l = 0; l < minibatches * each; ++l)
    lessons.push_back({.prompt = &prompt, .rollout = &answers[l % each % 2], .advantage = 1});
  rl::PolicyStep policy(model,
                        step,
                        nullptr,
                        {.loss = {},
                         .minibatches = minibatches,
                         .micro_batch_tokens = s.train.micro_batch_tokens,
                         .keep_routing = s.rl.keep_routing,
                         .drawn_elsewhere = !s.rl.rollout_device.empty(),
                         .mismatch_max = s.rl.mismatch_max});
  policy.run(lessons, s.optimizer.lr, [] {});
}

/// What an engine runs of these parts, and what it wants to know of the last token of each.
void pass(models::CausalLm& model,
          models::KvCache& cache,
          std::span<const models::KvCache::Part> parts) {
  const ops::Segments segments = cache.begin(parts);
  std::vector<int64_t> last;
  int64_t tokens = 0;
  for (const models::KvCache::Part& part : parts) last.push_back((tokens += part.tokens) - 1);
  models::ForwardOptions options;
  options.cache = &cache;
  Device& device = model.device();
  const std::vector<int32_t> ids(static_cast<size_t>(tokens), 0);
  const Tensor hidden =
      model.forward(Tensor::from_i32(ids, {tokens}, device), segments, options, nullptr);
  const auto rows = std::ssize(last);
  static_cast<void>(ops::token_log_probs(model.logits(hidden, last),
                                         Tensor::zeros({rows, 1}, DType::kI32, device),
                                         Tensor::zeros({rows}, DType::kF32, device)));
}

/// What an engine runs of a prompt as long as the model's context, but for one token, and this one
/// after it: passes over the first part of the prompt and over the last, and one of a single token.
void generate(models::CausalLm& model) {
  const int64_t positions = model.max_positions(),
                most = std::min(engine::EngineOptions{}.tokens_per_pass, positions);
  const std::unique_ptr<models::KvCache> cache = model.make_cache(models::pages_for(positions));
  std::vector<int32_t> pages(static_cast<size_t>(cache->pages()));
  std::iota(pages.begin(), pages.end(), 0);
  for (const auto& [length, tokens] :
       {std::pair{int64_t{0}, most}, {positions - 1 - most, most}, {positions - 1, int64_t{1}}}) {
    if (length < 0) continue;
    const models::KvCache::Part part{pages, length, tokens};
    pass(model, *cache, {&part, 1});
  }
}

/// As many answers at once as the run draws: passes over prompts, and the last tokens of all.
void draw_answers(models::CausalLm& model, const Settings& s) {
  const auto [asked, answered] = asked_and_answered(model, s);
  const int64_t running = s.rl.running, own = models::pages_for(asked + answered);
  const std::unique_ptr<models::KvCache> cache = model.make_cache(running * own);
  std::vector<int32_t> pages(static_cast<size_t>(running * own));
  std::iota(pages.begin(), pages.end(), 0);
  const auto parts = [&](int64_t count, int64_t length, int64_t tokens) {
    std::vector<models::KvCache::Part> all;
    for (int64_t i = 0; i < count; ++i)
      all.push_back(
          {std::span(pages).subspan(static_cast<size_t>(i * own), static_cast<size_t>(own)),
           length,
           tokens});
    return all;
  };
  const int64_t most = engine::EngineOptions{}.tokens_per_pass;
  pass(model,
       *cache,
       parts(std::clamp<int64_t>(most / asked, 1, running), 0, std::min(asked, most)));
  pass(model, *cache, parts(running, asked + answered - 1, 1));
}

/// A step of whatever the run learns from: of text, if it does not say.
Result<void> train(models::TrainableLm& model, const Settings& s) {
  const bool pairs = !s.dpo.pairs.empty(), tasks = !s.rl.tasks.empty();
  std::optional<TrainedAdapter> adapter;
  if (s.lora.rank > 0) {
    TRY_ASSIGN(adapter,
               TrainedAdapter::create({.rank = s.lora.rank,
                                       .alpha = s.lora.alpha,
                                       .rslora = s.lora.use_rslora,
                                       .targets = lora_targets(s.lora),
                                       .base = s.model.init},
                                      {},
                                      model.weights(),
                                      model.blocks(),
                                      static_cast<uint64_t>(s.train.seed)));
  }
  Optimizer optimizer(optimizer_of(s), adapter ? adapter->factors() : model.weights());
  const auto make_step = [&](const StepSettings& settings) {
    return TrainStep(model, optimizer, settings, nullptr, adapter ? &*adapter : nullptr);
  };
  StepSettings settings = step_settings(s.train);
  TrainStep step = make_step(settings);
  if (pairs) learn_from_pairs(model, step, s);
  if (!s.data.dir.empty() || (!pairs && !tasks)) learn_from_text(model, step, s);
  if (!tasks) return {};
  draw_answers(model, s);
  settings.mla_form = models::MlaForm::kAbsorbed;  // as ferry rl sets it
  TrainStep of_answers = make_step(settings);
  learn_from_answers(model, of_answers, s);
  return {};
}

/// What of the run was not gone through.
std::vector<std::string> left_out(const models::CausalLm& model, const Settings& s) {
  std::vector<std::string> out;
  if (!s.dpo.pairs.empty()) {
    const auto [longest, shorter] = unlike(s.data.sequence_length);
    out.push_back(fmt::format(
        "[dpo], pairs of other lengths: dpo.pairs is not read; answers of {} and of {} tokens were "
        "tried, each with its prompt",
        longest,
        shorter));
  }
  if (!s.rl.tasks.empty()) {
    const auto [asked, answered] = asked_and_answered(model, s);
    out.push_back(fmt::format(
        "[rl], prompts and answers of other lengths: rl.tasks is not read; prompts of "
        "{} tokens (data.sequence_length) and answers of {} and of {} (rl.tokens_max) were tried",
        asked,
        answered,
        unlike(answered).second));
    if (s.rl.kl != "none") out.emplace_back("[rl], the reference model of rl.kl");
    if (!s.rl.rollout_device.empty())
      out.push_back(
          fmt::format("[rl], the device that draws, rl.rollout_device {}: examine it, too",
                      s.rl.rollout_device));
  }
  if (model.has_mtp()) out.emplace_back("drafts by the model's MTP modules, while it answers");
  return out;
}

/// As DeepSeek's releases store weights of this type: in float8 the projections, bf16 the rest.
DType kept_in_release(const Weight& w, DType kept) {
  if (!w.matrix()) return DType::kF32;
  const bool product = takes_codes(w) || w.role == WeightRole::kFine;
  return kept == DType::kF8E4M3 && !product ? DType::kBF16 : kept;
}

/// The model that generates, with weights of the types that it would be served with.
Result<std::unique_ptr<models::CausalLm>> model_to_serve(const Run& run,
                                                         Device& device,
                                                         DType compute) {
  const bool pairs = ops::pairs_wanted(device, compute);
  if (run.directory != nullptr) {
    TRY_ASSIGN(const models::FittedConfig fitted, probe::fit_to(*run.directory));
    TRY_ASSIGN(std::unique_ptr<models::CausalLm> model,
               models::make_model(fitted.json, run.config_name, device, compute, std::nullopt));
    TRY(probe::make_room_for_fitted(*run.directory, fitted, *model, {.pairs = pairs}));
    return model;
  }
  TRY_ASSIGN(std::unique_ptr<models::CausalLm> model,
             models::make_model(run.config_json, run.config_name, device, compute, std::nullopt));
  const std::vector<Weight*> weights = model->weights();
  const bool tied = std::none_of(
      weights.begin(), weights.end(), [](const Weight* w) { return w->role == WeightRole::kHead; });
  for (Weight* w : weights) {
    const DType kept = kept_in_release(*w, run.kept);
    if (pairs && kept != DType::kF8E4M3 && takes_pairs(*w, tied)) {
      w->store_pairs(Tensor::empty({w->matrices(), w->pair_panels().count()}, DType::kI32, device));
      continue;
    }
    Tensor value = Tensor::empty(w->global_shape, kept, device);
    if (kept == DType::kF8E4M3)
      w->store(std::move(value),
               Tensor::empty(kF8Blocks.scales_of(w->global_shape), DType::kF32, device),
               kF8Blocks);
    else
      w->store(std::move(value));
  }
  return model;
}

/// What loading a model sends, before anything is computed.
void send(Device& device, models::CausalLm& model) {
  for (const Weight* w : model.weights())
    for (const Tensor* t : {&w->value, &w->scales})
      if (t->defined()) device.copy_from_host(t->data(), t->data(), t->bytes());
}

}  // namespace

Result<doctor::RunCalls> rehearse_run(const std::string& name, std::string_view on) {
  TRY_ASSIGN(const Run run, run_of(name));
  doctor::Rehearsal rehearsal(doctor::kind_of(on), names_tensor_products(on));
  const DType compute = run.settings.train.compute == "f32" ? DType::kF32 : DType::kBF16;
  Device& device = rehearsal.device();
  std::vector<std::string> not_gone_through;
  {
    TRY_ASSIGN(const std::unique_ptr<models::CausalLm> model, model_to_serve(run, device, compute));
    send(device, *model);
    generate(*model);
  }
  {
    TRY_ASSIGN(const std::unique_ptr<models::TrainableLm> model,
               models::make_model(run.config_json, run.config_name, device, compute, DType::kF32));
    send(device, *model);
    TRY(train(*model, run.settings));
    not_gone_through = left_out(*model, run.settings);
  }
  doctor::RunCalls calls = rehearsal.take(name);
  calls.left_out = std::move(not_gone_through);
  return calls;
}

}  // namespace ferry::cli
