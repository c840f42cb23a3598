#include "verify/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/units.h"
#include "base/version.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/model_texts.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "probe/directory_model.h"
#include "probe/layer_weights.h"
#include "probe/probe.h"
#include "verify/comparison.h"
#include "verify/recorder.h"
#include "verify/training.h"
#include "verify/verdict.h"

namespace ferry::verify {
namespace {

using probe::Answers;
using probe::Batch;

class Verifier {
 public:
  explicit Verifier(const Options& options) : options_(options) {}

  Result<Report> run() {
    TRY(open());
    TRY(check_files());
    TRY(make_model(fits()));
    TRY(compare_with_source());
    TRY(check_step());
    TRY(find_reference());
    TRY(add_long_probe());
    TRY(ask_device());
    write_texts(report_, *dir_);
    conclude(report_);
    return std::move(report_);
  }

 private:
  Result<void> open();
  Result<void> check_files();
  Result<void> make_model(bool keep);
  Result<std::optional<MadeFrom>> stated_origin();
  Result<void> check_origin(const MadeFrom& stated, const ModelSource& source);
  Result<void> compare_with_source();
  uint64_t memory() const { return options_.memory_bytes.value_or(memory_available().bytes); }
  bool fits() const;
  Result<void> check_step() const;
  Result<void> check_room(int64_t tokens) const;
  Result<void> check_probes() const;
  Result<void> find_reference();
  Result<Probes> answers_of_cpu(const std::vector<probe::Prompt>& prompts);
  Result<void> add_long_probe();
  Result<void> judge_step(const Batch& batch);
  Result<void> ask_device();
  Result<void> ask_and_record(const Batch& batch);
  std::set<int> parted_layers() const;
  void measure(const Batch& batch, const std::vector<std::vector<int32_t>>& given);
  void say(const std::string& text) const {
    if (options_.progress) options_.progress(text);
  }
  std::string config_path() const { return join_path(options_.directory, kConfigName); }

  const Options& options_;
  Device* device_ = nullptr;
  std::optional<ModelDir> dir_;
  DType compute_ = DType::kBF16;
  std::unique_ptr<models::TrainableLm> model_;
  std::optional<probe::LayerWeights> weights_;
  Probes probes_;
  Report report_;
};

Result<void> Verifier::open() {
  TRY_ASSIGN(device_, open_device(options_.device));
  TRY_ASSIGN(dir_, ModelDir::open(options_.directory));
  report_.directory = options_.directory;
  report_.device = device_->name();
  report_.description = device_->describe();
  report_.program = fmt::format("ferry {}", kVersion);
  const Passport* passport = dir_->passport();
  compute_ = options_.dtype.value_or(passport != nullptr ? passport->probes.dtype : DType::kBF16);
  report_.dtype = compute_;
  report_.has_passport = passport != nullptr;
  report_.notes = dir_->notes();
  if (passport == nullptr) {
    if (!options_.public_key.empty())
      return check_signer(passport, options_.public_key, options_.directory);
    report_.notes.push_back(fmt::format("no {}: nothing vouches for these weights", kPassportName));
    return {};
  }
  report_.root = passport->root;
  report_.reference = passport->probes.reference;
  if (passport->signature) report_.signed_by = passport->signature->public_key;
  if (!options_.public_key.empty())
    TRY(check_signer(passport, options_.public_key, options_.directory));
  if (passport->numerics != kNumerics)
    return fail(Code::kInvalidInput,
                "{}: numerics {}, this version of Ferry computes numerics {}; use the version that "
                "wrote it ({})",
                join_path(options_.directory, kPassportName),
                passport->numerics,
                kNumerics,
                passport->program);
  return {};
}

Result<void> Verifier::check_files() {
  if (dir_->passport() == nullptr && !dir_->has_checksums()) return {};
  say("checking every file's hashes");
  TRY(dir_->verify());
  if (dir_->passport() == nullptr) return {};
  for (const auto& [name, file] : dir_->passport()->files) {
    ++report_.files;
    report_.chunks += std::ssize(file.chunks);
    report_.bytes += file.bytes;
  }
  return {};
}

/// Whether the weights, in f32 and twice (the host's copy), leave half of the memory alone.
bool Verifier::fits() const {
  if (options_.stream) return !*options_.stream;
  double elements = 0;
  for (const std::string& name : dir_->names())
    elements += static_cast<double>(dir_->info(name)->shape.count());
  return 2 * 4 * elements < 0.5 * static_cast<double>(memory());
}

Result<void> Verifier::make_model(bool keep) {
  TRY_ASSIGN(probe::DirectoryModel made, probe::model_of(*dir_, *device_, compute_, false));
  model_ = std::move(made.model);
  report_.notes.insert(report_.notes.end(), made.notes.begin(), made.notes.end());
  // As whatever generates has them, or, to judge a training step, as whatever trains.
  const std::optional<DType> matrices = options_.train ? std::optional(DType::kF32) : std::nullopt;
  TRY_ASSIGN(weights_,
             probe::LayerWeights::create(*dir_, *model_, {.matrices = matrices, .keep = keep}));
  report_.streamed = !keep;
  return {};
}

/// What it was made from, as its passport states it, or else the file that lies there.
Result<std::optional<MadeFrom>> Verifier::stated_origin() {
  if (dir_->passport() != nullptr && dir_->passport()->made_from)
    return dir_->passport()->made_from;
  TRY_ASSIGN(const auto text, dir_->optional_text(kMadeFromName));
  if (!text) return std::optional<MadeFrom>();
  TRY_ASSIGN(MadeFrom made, parse_made_from(*text, dir_->path_of(kMadeFromName)));
  return std::optional(std::move(made));
}

/// Whether what is stated of the source is so: its weights, its passport, and who signed that. (What it had not then,
/// it may have now.)
Result<void> Verifier::check_origin(const MadeFrom& stated, const ModelSource& source) {
  const std::string& of = options_.source;
  const auto differs = [&](const char* what, const std::string& was, const std::string& is) {
    return fail(Code::kInvalidInput,
                "{}: states that it was made from {} {}, and {} {}; give its own source",
                options_.directory,
                what,
                was,
                of,
                is);
  };
  uint64_t hashed = 0;
  TRY_ASSIGN(const std::string root, source.weights_root([&](uint64_t more) {
    hashed += more;
    say(fmt::format(
        "{} of the weights of {} hashed", format_bytes(static_cast<double>(hashed)), of));
  }));
  if (root != stated.weights)
    return differs("the weights", stated.weights, "has the weights " + root);
  const auto* const directory = dynamic_cast<const ModelDir*>(&source);
  const Passport* const passport = directory != nullptr ? directory->passport() : nullptr;
  if (stated.passport && passport == nullptr)
    return differs("a model with the passport", *stated.passport, "has none");
  if (stated.passport && passport->root != *stated.passport)
    return differs(
        "a model with the passport", *stated.passport, "has the passport " + passport->root);
  if (stated.signed_by && !passport->signature)
    return differs("a model signed by", *stated.signed_by, "is not signed");
  if (stated.signed_by && passport->signature->public_key != *stated.signed_by)
    return differs(
        "a model signed by", *stated.signed_by, "is signed by " + passport->signature->public_key);
  if (!stated.verified) return {};
  TRY_ASSIGN(const std::vector<Verification> list, read_verifications(of, passport->root));
  if (std::none_of(list.begin(), list.end(), [](const Verification& v) { return v.passed; }))
    report_.notes.push_back(
        fmt::format("it states that its source had been verified, and beside {} no {} says so now",
                    of,
                    kVerifiedName));
  return {};
}

/// How far its numbers are from those of the model that it was converted from.
Result<void> Verifier::compare_with_source() {
  TRY_ASSIGN(const std::optional<MadeFrom> stated, stated_origin());
  if (stated) report_.made_from = ferry::describe(*stated);
  if (options_.source.empty()) return {};
  TRY_ASSIGN(const std::unique_ptr<ModelSource> source, open_model_source(options_.source));
  if (!stated) {
    report_.notes.push_back(
        fmt::format("it does not say what it was made from; it was compared with {}, and may be as "
                    "far from it as what ferry convert makes of it",
                    options_.source));
  } else if (stated->adapter) {
    return fail(
        Code::kInvalidInput,
        "{}: was made with an adapter merged in, so no one model is its source; merge them first "
        "(ferry convert MODEL --adapter ADAPTER --to f32), convert that, and give it as --source",
        options_.directory);
  } else {
    TRY(check_origin(*stated, *source));
  }
  TRY_ASSIGN(const probe::DirectoryModel of,
             probe::model_of(*source, cpu_device(), compute_, false));
  if (of.model->config_json("") != model_->config_json(""))
    return fail(Code::kInvalidInput,
                "{} and {}: their {} describe different models",
                options_.directory,
                options_.source,
                kConfigName);
  int64_t done = 0;
  TRY_ASSIGN(report_.from_source, distance_of_weights(*dir_, *source, model_->weights(), [&] {
               say(fmt::format("comparing with {}: {} tensors so far", options_.source, ++done));
             }));
  report_.source = options_.source;
  return {};
}

/// Probes index what the model gives by layer, router, expert and token: each must be the model's.
Result<void> Verifier::check_probes() const {
  int64_t routers = 0;  // of the blocks; those of MTP modules answer nothing
  for (const Weight* w : model_->weights())
    if (w->role == WeightRole::kRouter && w->layer <= model_->blocks()) ++routers;
  const auto all_below = [](const std::vector<int32_t>& ids, int64_t end) {
    return std::all_of(ids.begin(), ids.end(), [&](int32_t id) { return id >= 0 && id < end; });
  };
  for (const Probe& p : probes_.list) {
    bool fits = std::ssize(p.tokens) <= model_->max_positions() &&
                all_below(p.tokens, model_->vocab_size()) &&
                std::ssize(p.layers) == model_->blocks() + 1 && std::ssize(p.routers) == routers &&
                (routers == 0 || probes_.top_k > 0);
    for (const TopLogits& top : p.logits) fits &= all_below(top.tokens, model_->vocab_size());
    for (const RouterSummary& r : p.routers) fits &= all_below(r.experts, model_->experts());
    if (!fits)
      return fail(Code::kCorrupt,
                  "{}: probe \"{}\" does not fit the model ({} layers, {} routers, vocabulary {}); "
                  "the passport is another model's",
                  join_path(options_.directory, kPassportName),
                  p.name,
                  model_->blocks() + 1,
                  routers,
                  model_->vocab_size());
  }
  return {};
}

/// The passport's probes, or, for another type, what the CPU answers now.
Result<void> Verifier::find_reference() {
  const Passport* passport = dir_->passport();
  if (passport != nullptr) {
    probes_ = passport->probes;
    TRY(check_probes());
  }
  if (passport != nullptr && probes_.dtype == compute_ && !probes_.list.empty()) return {};
  report_.reference_made_now = true;
  report_.reference = cpu_device().describe();
  std::vector<probe::Prompt> prompts;
  for (const Probe& p : probes_.list)
    prompts.push_back({p.name, {p.tokens.begin(), p.tokens.begin() + p.prompt}});
  if (prompts.empty()) prompts = probe::synthetic_prompts(*model_);
  TRY_ASSIGN(probes_, answers_of_cpu(prompts));
  return {};
}

/// What the CPU answers in the type that is asked for, measured by its answers in the other one.
Result<Probes> Verifier::answers_of_cpu(const std::vector<probe::Prompt>& prompts) {
  say(fmt::format("asking the CPU for its answers in {}", to_string(compute_)));
  const DType other_type = compute_ == DType::kBF16 ? DType::kF32 : DType::kBF16;
  const bool keep = !report_.streamed;
  std::unique_ptr<models::CausalLm> models[2];
  std::optional<probe::LayerWeights> weights[2];
  for (int i = 0; i < 2; ++i) {
    TRY_ASSIGN(probe::DirectoryModel made,
               probe::model_of(*dir_, cpu_device(), i == 0 ? compute_ : other_type, false));
    models[i] = std::move(made.model);
    TRY_ASSIGN(
        weights[i],
        probe::LayerWeights::create(*dir_, *models[i], {.matrices = DType::kF32, .keep = keep}));
  }
  Probes probes;
  Result<void> inner;
  TRY(weights[0]->run([&] {
    inner = weights[1]->run([&] { probes = probe::record(*models[0], *models[1], prompts, {}); });
  }));
  TRY(std::move(inner));
  return probes;
}

/// A step needs all weights at once: without them, no verdict on it is given.
Result<void> Verifier::check_step() const {
  if (!options_.train || !report_.streamed) return {};
  return fail(options_.stream ? Code::kInvalidInput : Code::kExhausted,
              "{}: --train needs all weights at once, and {}",
              options_.directory,
              options_.stream ? "--stream loads them layer by layer"
                              : "here they are loaded layer by layer: they do not fit in memory");
}

/// Whether a pass over so many tokens fits: a probe is not taken in pieces, because attention over
/// all of it is what it is for.
Result<void> Verifier::check_room(int64_t tokens) const {
  double hidden = 0;
  for (const Weight* w : model_->weights())
    if (w->role == WeightRole::kEmbedding) hidden = static_cast<double>(w->global_shape[1]);
  // What every layer gave: as the device has it, its answer, and those of the reference in two types.
  const double answers = 4.0 * sizeof(float) * hidden * static_cast<double>(model_->blocks() + 1);
  // A layer's calls with what they read and wrote: there, here, and as float64 of one at a time.
  const double calls = 4 * model_->activation_bytes_per_token(models::Recompute::kLayers);
  const double step =
      options_.train ? model_->activation_bytes_per_token(models::Recompute::kNone) : 0;
  const double each = answers + calls + step, free = static_cast<double>(memory());
  if (each * static_cast<double>(tokens) <= free) return {};
  return fail(Code::kExhausted,
              "--positions {}: takes about {} of memory, {} are free; {} positions would fit",
              tokens,
              format_bytes(each * static_cast<double>(tokens)),
              format_bytes(free),
              static_cast<int64_t>(free / each));
}

/// A probe of as many tokens as were asked for, beside the passport's, which are short.
Result<void> Verifier::add_long_probe() {
  if (options_.positions == 0) return {};
  if (options_.positions < 2 || options_.positions > model_->max_positions())
    return fail(Code::kInvalidInput,
                "--positions {}: must be 2 to {}, the model's own context",
                options_.positions,
                model_->max_positions());
  TRY(check_room(options_.positions));
  constexpr int64_t kText = 16;  // of the positions, as many are the reference's own text
  const int64_t prompt = std::max<int64_t>(1, options_.positions - kText);
  TRY_ASSIGN(const Probes made,
             answers_of_cpu({probe::random_prompt(
                 fmt::format("{} positions", options_.positions), 3, prompt, *model_)}));
  if (probes_.list.empty()) probes_.top_k = made.top_k;
  probes_.list.insert(probes_.list.end(), made.list.begin(), made.list.end());
  return {};
}

Result<void> Verifier::ask_device() {
  const Batch batch = Batch::of(probes_);
  TRY(ask_and_record(batch));
  TRY(judge_step(batch));
  report_.altered = weights_->altered();
  return {};
}

/// A training step, if it is asked for.
Result<void> Verifier::judge_step(const Batch& batch) {
  if (!options_.train) return {};
  say("judging a training step, call by call");
  const int blocks = static_cast<int>(std::ssize(probes_.list[0].layers)) - 1;
  return weights_->run([&] { judge_training(*model_, batch, blocks, report_); });
}

Result<void> Verifier::ask_and_record(const Batch& batch) {
  Recorder recorder(*model_, static_cast<int>(std::ssize(probes_.list[0].layers)) - 1);
  const std::vector<std::vector<int32_t>> given = probe::reference_experts(probes_);
  const auto observed = [&](const std::function<void()>& pass) -> Result<void> {
    return weights_->run([&] {
      const ops::Observing observing(recorder);
      pass();
      recorder.finish();
    });
  };
  say("asking the device, with the reference's routing");
  Answers routed, served;
  TRY(weights_->run([&] { routed = probe::ask(*model_, batch, &given, probes_.top_k); }));
  compare_routed(report_, probes_, routed);
  say("asking the device as a server would, token by token");
  const auto nothing = [](int64_t) {};
  TRY(weights_->run([&] { served = serve(*model_, probes_, nullptr, nothing); }));
  if (routed_otherwise(probes_, served)) {
    say("asking once more: a token went to other experts, and what follows is compared with these "
        "given");
    Answers guided;
    TRY(weights_->run([&] { guided = serve(*model_, probes_, &given, nothing); }));
    compare_served(report_, probes_, served, guided);
  } else {
    compare_served(report_, probes_, served, served);
  }
  if (!report_.streamed) measure(batch, given);

  const std::set<int> only = options_.quick ? parted_layers() : std::set<int>{};
  if (!options_.quick || !only.empty()) {
    say(options_.quick ? "judging the ops of the layers that parted, one by one"
                       : "judging every op, one by one");
    TRY(observed([&] {
      recorder.begin_pass("packed", true, only);
      static_cast<void>(probe::ask(*model_, batch, nullptr, probes_.top_k));
    }));
    // The prompts, the first token after them, and the last one: what differs between the tokens
    // between is the length of the cache.
    int64_t last = 0;
    for (const Probe& p : probes_.list) last = std::max(last, std::ssize(p.tokens) - p.prompt);
    TRY(observed([&] {
      static_cast<void>(serve(*model_, probes_, nullptr, [&](int64_t step) {
        recorder.begin_pass("cached", step <= 1 || step == last, only);
      }));
    }));
  }
  report_.parted = recorder.parted();
  report_.overwritten = recorder.overwritten();
  report_.unjudged.assign(recorder.unjudged().begin(), recorder.unjudged().end());
  for (const auto& [number, work] : recorder.layers()) {
    report_.calls += work.calls;
    const size_t index =
        std::min(static_cast<size_t>(std::max(number - 1, 0)), report_.layers.size() - 1);
    LayerReport& layer = report_.layers[index];
    layer.calls += work.calls;
    if (work.worst > layer.worst_call) {
      layer.worst_call = work.worst;
      layer.worst_op = work.worst_op;
    }
  }
  return {};
}

/// Layers in tape's numbers whose activations parted, and the one before: its end is their input.
std::set<int> Verifier::parted_layers() const {
  std::set<int> layers;
  for (size_t l = 0; l < report_.layers.size(); ++l)
    if (report_.layers[l].distance > report_.layers[l].tolerance ||
        std::isnan(report_.layers[l].distance))
      layers.insert({static_cast<int>(l), static_cast<int>(l) + 1});
  if (layers.empty() &&
      (!report_.reasons.empty() || report_.logit_distance > report_.logit_tolerance))
    for (int l = 0; l <= static_cast<int>(report_.layers.size()); ++l) layers.insert(l);
  return layers;
}

/// What watching activations costs beside a forward pass that nobody watches.
void Verifier::measure(const Batch& batch, const std::vector<std::vector<int32_t>>& given) {
  const Clock& clock = system_clock();
  double plain = INFINITY, observed = INFINITY;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const double begin = clock.monotonic_s();
    const ops::Segments segments = ops::Segments::packed(batch.lengths, *device_);
    const Tensor hidden =
        model_->forward(Tensor::from_i32(batch.tokens, {std::ssize(batch.tokens)}, *device_),
                        segments,
                        {},
                        nullptr);
    std::vector<Tensor> rows;
    for (const int64_t& p : batch.positions) rows.push_back(model_->logits(hidden, {&p, 1}));
    for (const Tensor& t : rows) static_cast<void>(t.to_f32());
    const double middle = clock.monotonic_s();
    const Answers answers = probe::ask(*model_, batch, &given, probes_.top_k);
    for (const auto& layer : answers.layers)
      static_cast<void>(probe::summarise(layer, answers.tokens));
    plain = std::min(plain, middle - begin);
    observed = std::min(observed, clock.monotonic_s() - middle);
  }
  report_.plain_s = plain;
  report_.observed_s = observed;
}

}  // namespace

Result<Report> verify(const Options& options) { return Verifier(options).run(); }

Result<void> remember(const Report& report) {
  if (!report.has_passport) return {};
  TRY_ASSIGN(Device * device, open_device(report.device));
  return add_verification(report.directory,
                          report.root,
                          {.device = verified_as(*device),
                           .dtype = report.dtype,
                           .passed = report.device_passed,
                           .program = report.program,
                           .unix_ms = system_clock().unix_ms()});
}

}  // namespace ferry::verify
