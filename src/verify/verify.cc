#include "verify/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/version.h"
#include "checkpoint/model_dir.h"
#include "device/cpu/cpu_device.h"
#include "probe/layer_weights.h"
#include "probe/probe.h"
#include "text/tokenizer.h"
#include "verify/recorder.h"

namespace ferry::verify {
namespace {

using probe::Answers;
using probe::Batch;
using probe::kNoiseFactor;

/// Rows of the batch that hold a probe's tokens.
struct Rows {
  int64_t begin, tokens;
};

std::vector<Rows> rows_of(const Probes& probes) {
  std::vector<Rows> rows;
  int64_t begin = 0;
  for (const Probe& p : probes.list) {
    rows.push_back({begin, std::ssize(p.tokens)});
    begin += rows.back().tokens;
  }
  return rows;
}

/// The probes as a server meets them: all prompts at once into a cache, then each text token by
/// token. The tokens are the reference's, so that one difference does not hide the next.
/// before_pass(number of the pass) is called before each forward pass.
Answers serve(models::CausalLm& model,
              const Probes& probes,
              const std::function<void(int64_t)>& before_pass) {
  const std::vector<Rows> rows = rows_of(probes);
  Answers answers;
  int64_t longest = 0, texts = 0;
  std::vector<size_t> first_position;  // of each probe, among answers.logits
  for (size_t p = 0; p < rows.size(); ++p) {
    longest = std::max(longest, rows[p].tokens);
    texts = std::max(texts, rows[p].tokens - probes.list[p].prompt);
    first_position.push_back(answers.logits.size());
    answers.logits.resize(answers.logits.size() + probes.list[p].logits.size());
    answers.tokens += rows[p].tokens;
  }
  answers.experts.assign(
      probes.list[0].routers.size(),
      std::vector<int32_t>(static_cast<size_t>(answers.tokens * probes.top_k), -1));
  const auto cache = model.make_cache(std::ssize(rows), longest);
  for (int64_t step = 0; step <= texts; ++step) {
    before_pass(step);
    std::vector<models::KvCache::Part> parts;
    std::vector<int32_t> tokens;
    std::vector<int64_t> batch_rows;  // where these tokens are in the batch of all
    for (size_t p = 0; p < rows.size(); ++p) {
      const Probe& probe = probes.list[p];
      const int64_t begin = step == 0 ? 0 : probe.prompt + step - 1;
      const int64_t end = std::min(probe.prompt + step, rows[p].tokens);
      if (begin >= end) continue;
      parts.push_back({static_cast<int64_t>(p), end - begin});
      for (int64_t t = begin; t < end; ++t) {
        tokens.push_back(probe.tokens[static_cast<size_t>(t)]);
        batch_rows.push_back(rows[p].begin + t);
      }
    }
    const ops::Segments segments = cache->begin(parts);
    models::ForwardOptions options;
    options.cache = cache.get();
    models::ForwardTrace trace;
    const Tensor hidden = model.forward(
        Tensor::from_i32(tokens, {std::ssize(tokens)}, model.device()), segments, options, &trace);
    int64_t row = 0;
    for (const auto& part : parts) {
      row += part.tokens;
      answers.logits[first_position[static_cast<size_t>(part.slot)] + static_cast<size_t>(step)] =
          model.logits(hidden.slice(0, row - 1, row)).to_f32();
    }
    for (size_t l = 0; l < trace.experts.size(); ++l) {
      const std::vector<int32_t> chosen = trace.experts[l].to_i32();
      for (size_t i = 0; i < chosen.size(); ++i) {
        const auto top_k = static_cast<size_t>(probes.top_k);
        const auto to = static_cast<size_t>(batch_rows[i / top_k]) * top_k + i % top_k;
        answers.experts[l][to] = chosen[i];
      }
    }
  }
  return answers;
}

bool same_experts(const int32_t* a, const int32_t* b, int64_t top_k) {
  std::vector<int32_t> x(a, a + top_k), y(b, b + top_k);
  std::sort(x.begin(), x.end());
  std::sort(y.begin(), y.end());
  return x == y;
}

class Verifier {
 public:
  explicit Verifier(const Options& options) : options_(options) {}

  Result<Report> run() {
    TRY(open());
    TRY(check_files());
    TRY(make_model(fits()));
    TRY(find_reference());
    TRY(ask_device());
    write_texts();
    conclude();
    return std::move(report_);
  }

 private:
  Result<void> open();
  Result<void> check_files();
  Result<void> make_model(bool keep);
  bool fits() const;
  Result<void> find_reference();
  Result<void> ask_device();
  void write_texts();
  void compare_routed(const Answers& answers);
  void compare_served(const Answers& answers);
  double compare_logits(const Probe& probe, size_t position, const std::vector<float>& logits);
  std::set<int> parted_layers() const;
  void measure(const Batch& batch, const std::vector<std::vector<int32_t>>& given);
  void conclude();
  void say(const std::string& text) const {
    if (options_.progress) options_.progress(text);
  }
  template <typename... Args>
  void reason(fmt::format_string<Args...> format, Args&&... args) {
    report_.reasons.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  std::string config_path() const { return join_path(options_.directory, kConfigName); }

  const Options& options_;
  Device* device_ = nullptr;
  std::optional<ModelDir> dir_;
  DType compute_ = DType::kBF16;
  std::unique_ptr<models::CausalLm> model_;
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
  if (passport == nullptr) {
    if (!options_.public_key.empty())
      return fail(Code::kInvalidInput,
                  "{}: has no {}, so nobody signed it; `ferry passport` writes one",
                  options_.directory,
                  kPassportName);
    report_.notes.push_back(fmt::format("no {}: nothing vouches for these weights", kPassportName));
    return {};
  }
  report_.root = passport->root;
  report_.reference = passport->probes.reference;
  if (passport->signature) report_.signed_by = passport->signature->public_key;
  if (!options_.public_key.empty() && report_.signed_by != options_.public_key)
    return fail(Code::kInvalidInput,
                "{}: {}, expected {}",
                join_path(options_.directory, kPassportName),
                report_.signed_by.empty() ? "is not signed"
                                          : "is signed by another key: " + report_.signed_by,
                options_.public_key);
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
  return 2 * 4 * elements < 0.5 * static_cast<double>(memory_available().bytes);
}

Result<void> Verifier::make_model(bool keep) {
  TRY_ASSIGN(
      model_,
      models::make_model(dir_->config_json(), config_path(), *device_, compute_, std::nullopt));
  // f32, as whatever generates has them; one layer at a time they are rounded where they are
  // loaded, which gives the same bits.
  const DType matrices = keep ? DType::kF32 : compute_;
  TRY_ASSIGN(weights_,
             probe::LayerWeights::create(*dir_, *model_, {.matrices = matrices, .keep = keep}));
  report_.streamed = !keep;
  return {};
}

/// The passport's probes, or, for another type, what the CPU answers now.
Result<void> Verifier::find_reference() {
  const Passport* passport = dir_->passport();
  if (passport != nullptr) {
    probes_ = passport->probes;
    for (const Probe& p : probes_.list)
      for (const int32_t id : p.tokens)
        if (id < 0 || id >= model_->vocab_size() || std::ssize(p.tokens) > model_->max_positions())
          return fail(Code::kCorrupt,
                      "{}: probe {} does not fit the model; the passport is another model's",
                      join_path(options_.directory, kPassportName),
                      p.name);
  }
  if (passport != nullptr && probes_.dtype == compute_ && !probes_.list.empty()) {
    const int64_t layers = model_->experts() > 0 ? std::ssize(probes_.list[0].routers) : 0;
    if (layers != std::ssize(probes_.list[0].routers))
      return fail(Code::kCorrupt, "{}: probes of a model with experts", options_.directory);
    return {};
  }
  report_.reference_made_now = true;
  report_.reference = cpu_device().describe();
  say(fmt::format("asking the CPU for its answers in {}", to_string(compute_)));
  std::vector<probe::Prompt> prompts;
  for (const Probe& p : probes_.list)
    prompts.push_back({p.name, {p.tokens.begin(), p.tokens.begin() + p.prompt}});
  if (prompts.empty()) prompts = probe::synthetic_prompts(*model_);
  const DType other_type = compute_ == DType::kBF16 ? DType::kF32 : DType::kBF16;
  const bool keep = !report_.streamed;
  std::unique_ptr<models::CausalLm> models[2];
  std::optional<probe::LayerWeights> weights[2];
  for (int i = 0; i < 2; ++i) {
    TRY_ASSIGN(models[i],
               models::make_model(dir_->config_json(),
                                  config_path(),
                                  cpu_device(),
                                  i == 0 ? compute_ : other_type,
                                  std::nullopt));
    TRY_ASSIGN(
        weights[i],
        probe::LayerWeights::create(*dir_, *models[i], {.matrices = DType::kF32, .keep = keep}));
  }
  Result<void> inner;
  TRY(weights[0]->run([&] {
    inner = weights[1]->run([&] { probes_ = probe::record(*models[0], *models[1], prompts, {}); });
  }));
  return inner;
}

Result<void> Verifier::ask_device() {
  Recorder recorder(*model_, static_cast<int>(std::ssize(probes_.list[0].layers)) - 1);
  const Batch batch = Batch::of(probes_);
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
  compare_routed(routed);
  say("asking the device as a server would, token by token");
  TRY(weights_->run([&] { served = serve(*model_, probes_, [](int64_t) {}); }));
  compare_served(served);
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
      static_cast<void>(serve(*model_, probes_, [&](int64_t step) {
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
  report_.altered = weights_->altered();
  return {};
}

/// Activations and logits of the pass that was given the reference's routing.
void Verifier::compare_routed(const Answers& answers) {
  const std::vector<Rows> rows = rows_of(probes_);
  const size_t layers = answers.layers.size();
  const auto hidden = std::ssize(answers.layers[0]) / answers.tokens;
  report_.equal_bits = true;
  for (size_t l = 0; l < layers; ++l) {
    LayerReport layer{.name = l + 1 == layers ? "norm" : fmt::format("block {}", l)};
    double worst = -1;
    for (size_t p = 0; p < rows.size(); ++p) {
      const LayerSummary& summary = probes_.list[p].layers[l];
      const auto mine = std::span(answers.layers[l])
                            .subspan(static_cast<size_t>(rows[p].begin * hidden),
                                     static_cast<size_t>(rows[p].tokens * hidden));
      const double distance = probe::distance(summary, mine, rows[p].tokens);
      const double tolerance =
          kNoiseFactor * static_cast<double>(summary.noise) + unit_roundoff(compute_);
      const double ratio = std::isnan(distance) ? INFINITY : distance / tolerance;
      report_.equal_bits &= distance == 0;
      if (ratio <= worst) continue;
      worst = ratio;
      layer.distance = distance;
      layer.tolerance = tolerance;
    }
    report_.layers.push_back(layer);
  }
  size_t position = 0;
  for (const Probe& probe : probes_.list)
    for (size_t i = 0; i < probe.logits.size(); ++i, ++position)
      compare_logits(probe, i, answers.logits[position]);
}

/// Notes the largest distance of the logits that the reference thinks most of. Returns the
/// tolerance.
double Verifier::compare_logits(const Probe& probe,
                                size_t position,
                                const std::vector<float>& logits) {
  const TopLogits& top = probe.logits[position];
  double noise = 0;  // one probe's largest is of a few numbers; that of all is steadier
  for (const Probe& p : probes_.list) noise = std::max(noise, static_cast<double>(p.logit_noise));
  double largest_logit = 1;
  for (const float v : top.values)
    largest_logit = std::max(largest_logit, std::abs(static_cast<double>(v)));
  const double tolerance = kNoiseFactor * noise + 0x1p-20 * largest_logit;
  double distance = std::abs(static_cast<double>(probe::log_sum_exp(logits)) -
                             static_cast<double>(top.log_sum_exp));
  for (size_t i = 0; i < top.tokens.size(); ++i)
    distance = std::max(distance,
                        std::abs(static_cast<double>(logits[static_cast<size_t>(top.tokens[i])]) -
                                 static_cast<double>(top.values[i])));
  if (std::isnan(distance)) distance = INFINITY;
  report_.equal_bits &= distance == 0;
  if (distance * report_.logit_tolerance >= report_.logit_distance * tolerance) {
    report_.logit_distance = distance;
    report_.logit_tolerance = tolerance;
  }
  return tolerance;
}

/// Choices of experts, logits and tokens of the passes that chose for themselves.
void Verifier::compare_served(const Answers& answers) {
  const std::vector<Rows> rows = rows_of(probes_);
  const int64_t top_k = probes_.top_k;
  const size_t blocks = report_.layers.size() - 1, routers = answers.experts.size();
  size_t position = 0;
  for (size_t p = 0; p < rows.size(); ++p) {
    const Probe& probe = probes_.list[p];
    // From the first token that went another way on, activations are another computation's.
    int64_t first_other = rows[p].tokens;
    for (size_t l = 0; l < routers; ++l) {
      LayerReport& layer = report_.layers[blocks - routers + l];
      const int64_t other_before = first_other;
      for (int64_t t = 0; t < rows[p].tokens; ++t) {
        const int32_t* mine = &answers.experts[l][static_cast<size_t>((rows[p].begin + t) * top_k)];
        const RouterSummary& reference = probe.routers[l];
        if (same_experts(mine, &reference.experts[static_cast<size_t>(t * top_k)], top_k)) continue;
        ++layer.routed_otherwise;
        first_other = std::min(first_other, t);
        const double gap = static_cast<double>(reference.gaps[static_cast<size_t>(t)]);
        double noise = 0;
        for (const Probe& other : probes_.list)
          noise = std::max(noise, static_cast<double>(other.routers[l].noise));
        const double tolerance = 2 * (kNoiseFactor * noise + 0x1p-22);
        if (gap <= tolerance || t >= other_before) {
          ++layer.near_ties;  // or what follows from one
        } else {
          reason(
              "{}: token {} of probe \"{}\" went to other experts, although the reference's "
              "scores differ by {:.3g} (tolerance {:.3g})",
              layer.name,
              t,
              probe.name,
              gap,
              tolerance);
        }
      }
    }
    TextReport text{.name = probe.name,
                    .prompt = {probe.tokens.begin(), probe.tokens.begin() + probe.prompt}};
    for (size_t i = 0; i < probe.logits.size(); ++i, ++position) {
      const int64_t at = probe.prompt - 1 + static_cast<int64_t>(i);
      const bool comparable = at < first_other;
      const std::vector<float>& logits = answers.logits[position];
      const double tolerance = comparable ? compare_logits(probe, i, logits) : 0;
      if (at + 1 >= rows[p].tokens) continue;  // nothing was written after the last token
      TokenReport token{.expected = probe.tokens[static_cast<size_t>(at + 1)],
                        .got = probe::best(logits),
                        .comparable = comparable};
      ++report_.tokens;
      if (token.got == token.expected) {
        ++report_.tokens_agree;
      } else {
        const TopLogits& top = probe.logits[i];
        const auto it = std::find(top.tokens.begin(), top.tokens.end(), token.got);
        const float other = it == top.tokens.end()
                                ? top.values.back()  // at least this far away
                                : top.values[static_cast<size_t>(it - top.tokens.begin())];
        token.margin = static_cast<double>(top.values[0] - other);
        token.right = !comparable || token.margin <= 2 * tolerance;
        if (token.right) ++report_.tokens_near_tie;
        if (!token.right)
          reason(
              "probe \"{}\": token {} of the text is {}, the reference's is {} by a margin of "
              "{:.4g} (tolerance {:.4g})",
              probe.name,
              i,
              token.got,
              token.expected,
              token.margin,
              2 * tolerance);
      }
      text.tokens.push_back(token);
    }
    report_.texts.push_back(std::move(text));
  }
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
    for (const int64_t p : batch.positions)
      rows.push_back(model_->logits(hidden.slice(0, p, p + 1)));
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

/// What the ids of the texts say; the ids themselves where there is no tokenizer.
void Verifier::write_texts() {
  const std::string name = "tokenizer.json";
  const auto read = [&]() -> Result<text::Tokenizer> {
    TRY_ASSIGN(const std::string content, dir_->text(name));
    return text::Tokenizer::parse(content, join_path(options_.directory, name));
  };
  const Result<text::Tokenizer> tokenizer = read();
  if (!tokenizer && tokenizer.error().code != Code::kNotFound)
    report_.notes.push_back(
        fmt::format("texts are shown by their ids: {}", tokenizer.error().message));
  const auto shown = [&](int32_t id) {
    const std::string_view bytes = tokenizer ? tokenizer->token_bytes(id) : std::string_view();
    if (bytes.empty()) return fmt::format("<{}>", id);
    std::string out;
    for (const char c : bytes) {
      if (c == '\n')
        out += "\\n";
      else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
        out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
      else
        out += c;
    }
    return out;
  };
  for (TextReport& t : report_.texts)
    for (TokenReport& k : t.tokens) {
      k.expected_text = shown(k.expected);
      k.got_text = shown(k.got);
    }
}

void Verifier::conclude() {
  std::vector<std::string> found;
  std::swap(found, report_.reasons);  // the culprit first
  if (!report_.parted.empty()) {
    const CallReport& first = report_.parted.front();
    reason("the first op that goes wrong, given the right inputs: {} of the {} pass, {}{}{}",
           first.layer,
           first.pass,
           describe(first.finding),
           first.calls.empty() ? "" : "; the library's calls in it: ",
           fmt::join(first.calls, ", "));
  }
  if (!report_.overwritten.empty())
    reason("memory changed between two ops (a late copy, or memory given away too early): {}{}",
           report_.overwritten.front(),
           report_.overwritten.size() > 1
               ? fmt::format(" and {} more", report_.overwritten.size() - 1)
               : "");
  for (const std::string& name : report_.altered)
    reason("the device gave back {} otherwise than it was sent: copies cannot be trusted", name);
  for (const LayerReport& l : report_.layers)
    if (!(l.distance <= l.tolerance)) {
      reason(
          "{}: activations are {:.3g} away from the reference's, relatively (tolerance {:.3g}); "
          "it is the first layer that parts",
          l.name,
          l.distance,
          l.tolerance);
      break;
    }
  if (!(report_.logit_distance <= report_.logit_tolerance))
    reason("logits are up to {:.4g} away from the reference's (tolerance {:.4g})",
           report_.logit_distance,
           report_.logit_tolerance);
  report_.reasons.insert(report_.reasons.end(), found.begin(), found.end());
  if (!report_.reasons.empty() && report_.parted.empty() && report_.overwritten.empty() &&
      report_.altered.empty())
    report_.notes.emplace_back(
        "no op is wrong when it is judged alone: what is wrong depends on timing, or on memory "
        "that no op reads");
  for (const std::string& op : report_.unjudged)
    report_.notes.push_back(fmt::format("{} was not judged: it has no rule", op));
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
                           .passed = report.passed(),
                           .program = report.program,
                           .unix_ms = system_clock().unix_ms()});
}

}  // namespace ferry::verify
