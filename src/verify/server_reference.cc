#include "verify/server_reference.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "base/math.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "probe/directory_model.h"
#include "probe/probe.h"
#include "tensor/bf16.h"

namespace ferry::verify {
namespace {

using Json = nlohmann::json;

constexpr int64_t kTokensPerPass = 2048;  // whole texts: one that is longer has a pass of its own
constexpr size_t kRowsAtOnce = 64;

Thought thought_of(std::span<const float> logits, const std::vector<int32_t>& ids) {
  Thought t;
  t.best = probe::best(logits);
  const auto top = static_cast<double>(logits[static_cast<size_t>(t.best)]);
  double sum = 0, first = 0, second = 0;  // of e^x, x e^x, x^2 e^x, x below the top
  double cool = 0, cool_first = 0;        // of e^(x/T), x e^(x/T)
  for (const float l : logits) {
    const double x = static_cast<double>(l) - top, e = math::exp(x);
    sum += e;
    first += x * e;
    second += x * x * e;
    const double c = math::exp(x / kCoolTemperature);
    cool += c;
    cool_first += x * c;
  }
  const double normaliser = math::log(sum);
  t.best_log_prob = -normaliser;
  t.mean_log_prob = first / sum - normaliser;
  t.cool_log_prob = cool_first / cool - normaliser;
  t.variance = std::max(0.0, second / sum - (first / sum) * (first / sum));
  for (const int32_t id : ids)
    t.log_probs.push_back(static_cast<double>(logits[static_cast<size_t>(id)]) - top - normaliser);
  return t;
}

/// All questions, as many in one pass as its tokens allow.
/// In bf16 logits are rounded as well: most servers do so.
std::vector<std::vector<Thought>> ask_model(models::CausalLm& model,
                                            std::span<const Question> questions) {
  std::vector<std::vector<Thought>> thoughts(questions.size());
  const auto vocabulary = static_cast<size_t>(model.vocab_size());
  for (size_t begin = 0; begin < questions.size();) {
    std::vector<int32_t> tokens, lengths;
    struct Place {
      size_t question;
      const Question::Row* row;
    };
    std::vector<Place> places;
    std::vector<int64_t> rows;
    size_t end = begin;
    for (; end < questions.size(); ++end) {
      const Question& q = questions[end];
      check(!q.tokens.empty(), "reference: a question without tokens");
      if (end > begin && std::ssize(tokens) + std::ssize(q.tokens) > kTokensPerPass) break;
      for (const Question::Row& row : q.rows) {
        check(row.at >= 0 && row.at < std::ssize(q.tokens), "reference: row {}", row.at);
        places.push_back({end, &row});
        rows.push_back(std::ssize(tokens) + row.at);
      }
      tokens.insert(tokens.end(), q.tokens.begin(), q.tokens.end());
      lengths.push_back(static_cast<int32_t>(q.tokens.size()));
    }
    begin = end;
    const Tensor hidden =
        model.forward(Tensor::from_i32(tokens, {std::ssize(tokens)}, model.device()),
                      ops::Segments::packed(lengths, model.device()),
                      {},
                      nullptr);
    for (size_t at = 0; at < rows.size(); at += kRowsAtOnce) {
      const size_t count = std::min(kRowsAtOnce, rows.size() - at);
      std::vector<float> logits = model.logits(hidden, std::span(rows).subspan(at, count)).to_f32();
      if (model.compute() == DType::kBF16)
        for (float& l : logits) l = bf16_to_f32(f32_to_bf16(l));
      for (size_t i = 0; i < count; ++i) {
        const Place& place = places[at + i];
        thoughts[place.question].push_back(
            thought_of(std::span(logits).subspan(i * vocabulary, vocabulary), place.row->ids));
      }
    }
  }
  return thoughts;
}

}  // namespace

Result<Reference> Reference::open(const std::string& directory) {
  Reference r;
  TRY_ASSIGN(r.source_, open_model_source(directory));
  TRY_ASSIGN(probe::DirectoryModel made,
             probe::model_of(*r.source_, cpu_device(), DType::kF32, true, {.keep_codes = false}));
  TRY_ASSIGN(r.texts_, read_model_texts(*r.source_));
  TRY(require_tokenizer(*r.source_, r.texts_));
  r.notes_ = std::move(made.notes);
  r.model_ = std::move(made.model);
  if (r.texts_.tokenizer->vocab_size() > r.model_->vocab_size())
    return fail(Code::kInvalidInput,
                "{}: the tokenizer has {} ids, the model {}",
                directory,
                r.texts_.tokenizer->vocab_size(),
                r.model_->vocab_size());
  return r;
}

Result<std::vector<std::vector<Thought>>> Reference::ask(const Variant& variant,
                                                         std::span<const Question> questions) {
  if (variant == Variant{}) return ask_model(*model_, questions);
  if (variant == Variant{.config_json = "", .compute = DType::kBF16}) {
    if (rounded_ == nullptr) {
      TRY_ASSIGN(rounded_, probe::sibling(*model_, DType::kBF16));
    }
    return ask_model(*rounded_, questions);
  }
  TRY_ASSIGN(models::FittedConfig fitted, probe::fit_to(*source_));
  if (!variant.config_json.empty()) fitted.json = variant.config_json;
  TRY_ASSIGN(
      const std::unique_ptr<models::TrainableLm> model,
      models::make_model(
          fitted.json, source_->path_of(kConfigName), cpu_device(), variant.compute, std::nullopt));
  TRY(probe::load_fitted(
      *source_, fitted, *model, {.quantise = variant.codes, .keep_codes = false}));
  return ask_model(*model, questions);
}

std::vector<std::pair<std::string, Variant>> Reference::other_rope() const {
  const Result<models::FittedConfig> fitted = probe::fit_to(*source_);
  check(fitted.has_value(), "reference: its config was read before");
  const Json config = Json::parse(fitted->json);
  std::vector<std::pair<std::string, Variant>> out;
  const auto add = [&](std::string words, const Json& changed) {
    Variant v{.config_json = json_text(changed)};
    // What this architecture does not compute, no server that runs it does by mistake.
    if (models::make_model(v.config_json, "", cpu_device(), DType::kF32, std::nullopt))
      out.emplace_back(std::move(words), std::move(v));
  };
  const auto scaled = [&](const char* name) {
    const auto it = config.find(name);
    return it != config.end() && it->is_object() &&
           (it->contains("factor") || it->contains("short_factor"));
  };
  Json plain = config;
  double theta = config.value("rope_theta", 10000.0);
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    if (!config.contains(name)) continue;
    if (config[name].is_object()) theta = config[name].value("rope_theta", theta);
    plain.erase(name);
  }
  plain["rope_theta"] = theta;
  if (scaled("rope_scaling") || scaled("rope_parameters"))
    add("the scaling of RoPE is ignored", plain);
  for (const double other : {10000.0, 500000.0, 1000000.0}) {
    if (other == theta) continue;
    Json changed = plain;
    changed["rope_theta"] = other;
    add(fmt::format("RoPE's base is {}, not {}", other, theta), changed);
  }
  for (const double factor : {2.0, 4.0, 8.0}) {
    Json changed = plain;
    changed["rope_scaling"] = {{"rope_type", "linear"}, {"factor", factor}};
    add(fmt::format("RoPE is scaled linearly by {}", factor), changed);
  }
  return out;
}

std::vector<int32_t> prompt_ids(const Reference& reference, const std::string& text) {
  std::vector<int32_t> ids;
  const ModelTexts& texts = reference.texts();
  if (texts.begins) ids.push_back(*texts.bos);
  texts.tokenizer->encode(text, text::Tokenizer::Specials::kAsText, ids);
  return ids;
}

}  // namespace ferry::verify
