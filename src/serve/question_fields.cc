#include "serve/question_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"
#include "base/ordered_json.h"
#include "base/python_json.h"
#include "engine/answer_fields.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::json;

constexpr size_t kStopsMax = 32;
constexpr size_t kStopBytesMax = 1024;
constexpr double kBiasMax = 1000;  // the sampler's
constexpr size_t kBiasesMax = 1024;
constexpr int64_t kLogProbsMax = 1 << 20;         // of tokens and alternatives, in one document
constexpr int64_t kLogProbsInEventMax = 1 << 14;  // of a prompt that a stream repeats

/// They name the caller, or ask for what has no meaning here; an answer does not depend on them.
const std::set<std::string>& about_the_caller() {
  static const std::set<std::string> names = {"user",
                                              "metadata",
                                              "store",
                                              "service_tier",
                                              "safety_identifier",
                                              "prompt_cache_key",
                                              "prompt_cache_retention"};
  return names;
}

void check_model(JsonFields& fields, const ReadingRules& rules, Question& q) {
  q.model = fields.text("model", rules.names.front());
}

void read_stream(JsonFields& fields, Question& q) {
  q.stream = fields.boolean("stream", false);
  if (!fields.has("stream_options")) return;
  if (!q.stream) return fields.refuse("stream_options", "is for streams: set \"stream\" to true");
  JsonFields options = fields.object("stream_options");
  q.usage_in_stream = options.boolean("include_usage", false);
  options.only("include_obfuscation", false);
  options.only("continuous_usage_stats", false);
  options.refuse_unknown({}, "is no option of a stream");
}

void check_stops(JsonFields& fields, const std::vector<std::string>& stop) {
  if (stop.size() > kStopsMax)
    fields.refuse("stop", fmt::format("has {} texts; at most {}", stop.size(), kStopsMax));
  for (const std::string& s : stop)
    if (s.empty() || s.size() > kStopBytesMax)
      fields.refuse("stop", fmt::format("must be of texts of 1 to {} bytes", kStopBytesMax));
}

/// Token ids, each of the vocabulary.
std::vector<int32_t> ids_of(const Json& list,
                            JsonFields& fields,
                            const char* name,
                            int64_t vocabulary) {
  std::vector<int32_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_integer() || (id.is_number_unsigned() && id.get<uint64_t>() > INT32_MAX) ||
        id.get<int64_t>() < 0 || id.get<int64_t>() >= vocabulary) {
      fields.refuse(name, fmt::format("must hold token ids from 0 to {}", vocabulary - 1));
      return {};
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

ApiError does_not_fit(const std::string& has, const ReadingRules& rules, const char* param) {
  return {
      .message = fmt::format("the prompt has {}; this server has room for {}, prompt and answer "
                             "together",
                             has,
                             rules.context),
      .param = param,
      .code = "context_length_exceeded"};
}

/// What is told of many tokens is a document that takes seconds, and gigabytes, to write. Of prompts, that is: those of
/// answers come no faster than answers do, and most ask for as many as there is room for, and use few.
void check_log_probs(JsonFields& fields, const Question& q) {
  if (!q.options.prompt_top_log_probs) return;
  int64_t prompts = 0, longest = 0;
  for (const Prompt& p : q.prompts) {
    prompts += std::ssize(p.ids);
    longest = std::max<int64_t>(longest, std::ssize(p.ids));
  }
  const int64_t told =  // an event is of one answer
      (q.stream ? longest : prompts * q.choices) * (*q.options.prompt_top_log_probs + 1);
  const int64_t most = q.stream ? kLogProbsInEventMax : kLogProbsMax;
  if (told <= most) return;
  fields.refuse(
      fields.has("prompt_logprobs") ? "prompt_logprobs" : "logprobs",
      fmt::format("asks for up to {} log-probabilities in one {}; at most {}: ask for fewer "
                  "alternatives, answers or tokens, or in several requests",
                  told,
                  q.stream ? "event" : "answer",
                  most));
}

/// One text, several, the ids of one, or of several. What does not fit is told once all fields were read.
ApiResult<void> read_prompts(JsonFields& fields, const ReadingRules& rules, Question& q) {
  ApiResult<void> fits;
  const ModelInfo& m = rules.model;
  const bool begin = fields.boolean("add_special_tokens", true);
  const Json& given = fields.at("prompt");
  const auto add_text = [&](const Json& json) {
    const auto& text = json.get_ref<const std::string&>();
    if (fits) fits = check_prompt_bytes(text.size(), rules, "prompt");
    if (!fits) return;
    Prompt prompt{.ids = ids_of_text(m.texts, text, begin), .text = text, .as_text = true};
    if (prompt.ids.empty()) {
      const Result<int32_t> first = m.texts.context_of_first(m.directory);
      if (!first) return fields.refuse("prompt", first.error().message);
      prompt.ids.push_back(*first);
    }
    const bool has_first = text.starts_with(m.texts.tokenizer->token_bytes(prompt.ids.front()));
    if (m.texts.tokenizer->is_special(prompt.ids.front()) && !has_first) prompt.begun = true;
    q.prompts.push_back(std::move(prompt));
  };
  const auto add_ids = [&](const Json& list) {
    if (list.empty()) return fields.refuse("prompt", "is empty");
    const std::vector<int32_t> ids = ids_of(list, fields, "prompt", rules.vocab_size);
    q.prompts.push_back({.ids = ids, .text = m.texts.tokenizer->decode(ids, true)});
  };
  if (given.is_string()) {
    add_text(given);
    return fits;
  }
  if (!given.is_array() || given.empty()) {
    if (!given.is_null()) fields.refuse("prompt", "must be text, token ids, or a list of either");
    return {};
  }
  if (given[0].is_number()) {
    add_ids(given);
    return {};
  }
  if (std::ssize(given) > kAnswersMax) {
    fields.refuse(
        "prompt",
        fmt::format("has {} prompts; at most {} in a request", given.size(), kAnswersMax));
    return {};
  }
  for (const Json& one : given) {
    if (one.is_string())
      add_text(one);
    else if (one.is_array())
      add_ids(one);
    else
      fields.refuse("prompt", "must be text, token ids, or a list of either");
  }
  return fits;
}

/// Whether it holds what may be a whole number beyond 64 bits.
bool holds_large_number(const Json& json) {
  if (json.is_structured())
    return std::any_of(
        json.begin(), json.end(), [](const Json& part) { return holds_large_number(part); });
  return json.is_number_float() && std::abs(json.get<double>()) >= 0x1p63;
}

}  // namespace

engine::SamplingOptions default_sampling(const ModelTexts& texts) {
  engine::SamplingOptions s{.temperature = 1, .top_p = 1};
  const auto file = texts.files.find(kGenerationConfigName);
  if (file == texts.files.end()) return s;
  const Result<Json> config = parse_python_json(file->second, kGenerationConfigName);
  if (!config || !config->is_object()) return s;
  const engine::SamplingOptions without = s;
  const auto take = [&](const char* name, auto& value) {
    if (const auto it = config->find(name); it != config->end() && it->is_number())
      it->get_to(value);
  };
  take("temperature", s.temperature);
  take("top_p", s.top_p);
  take("top_k", s.top_k);
  take("min_p", s.min_p);
  take("repetition_penalty", s.repetition_penalty);
  return engine::validate(s) ? s : without;
}

ApiResult<Json> parse_request(std::string_view body) {
  Result<Json> json = parse_json(body, kWhere);
  if (!json) return tl::unexpected(api_error(json.error()));
  if (!json->is_object())
    return tl::unexpected(ApiError{.message = "request: must be a JSON object"});
  return *std::move(json);
}

ApiResult<nlohmann::ordered_json> parse_ordered_request(std::string_view body) {
  Result<nlohmann::ordered_json> ordered = parse_ordered_json(body, kWhere);
  if (ordered && ordered->is_object()) return *std::move(ordered);
  const ApiResult<Json> request = parse_request(body);
  if (!request) return tl::unexpected(request.error());
  ApiError error = api_error(ordered.error());
  for (const auto& [name, value] : request->items())
    if (error.param.empty() && holds_large_number(value)) error.param = name;
  return tl::unexpected(std::move(error));
}

std::vector<int32_t> ids_of_text(const ModelTexts& texts, std::string_view text, bool begin) {
  constexpr auto kParse = text::Tokenizer::Specials::kParse;
  if (begin) return texts.text_ids(text, kParse);
  std::vector<int32_t> ids;
  texts.tokenizer->encode(text, kParse, ids);
  return ids;
}

std::vector<int32_t> read_token_ids(JsonFields& fields, const char* name, int64_t vocabulary) {
  return ids_of(fields.list(name), fields, name, vocabulary);
}

ApiResult<void> check_prompt_bytes(size_t bytes, const ReadingRules& rules, const char* param) {
  if (rules.counts || bytes <= static_cast<size_t>(rules.context)) return {};
  size_t longest = 1;
  for (int32_t id = 0; id < rules.model.texts.tokenizer->vocab_size(); ++id)
    longest = std::max(longest, rules.model.texts.tokenizer->token_bytes(id).size());
  if (bytes / longest <= static_cast<size_t>(rules.context)) return {};
  return tl::unexpected(
      does_not_fit(fmt::format("{} bytes, at most {} to a token", bytes, longest), rules, param));
}

void read_shared_fields(JsonFields& fields, const ReadingRules& rules, Question& q) {
  check_model(fields, rules, q);
  read_stream(fields, q);
  q.choices = fields.integer("n", 1, kAnswersMax, 1);
  q.options.sampling = rules.sampling;
  q.options.sampling.seed = rules.seed;
  q.seeded = fields.has("seed");
  engine::read_sampling(fields, q.options.sampling);
  if (q.options.sampling.logit_bias.size() > kBiasesMax)
    fields.refuse(
        "logit_bias",
        fmt::format("has {} tokens; at most {}", q.options.sampling.logit_bias.size(), kBiasesMax));
  for (const auto& [id, bias] : q.options.sampling.logit_bias)
    if (id < 0 || id >= rules.vocab_size || !(std::abs(bias) <= kBiasMax))
      fields.refuse(
          "logit_bias",
          fmt::format("has token {} with {}: the vocabulary has {} tokens, and a bias is from "
                      "-{} to {}",
                      id,
                      bias,
                      rules.vocab_size,
                      kBiasMax,
                      kBiasMax));
  engine::read_stop(fields, q.stop);
  check_stops(fields, q.stop);
  if (!fields.boolean("ignore_eos", false)) q.options.end_tokens = rules.model.texts.eos;
  if (fields.has("stop_token_ids")) {
    const std::vector<int32_t> ids = read_token_ids(fields, "stop_token_ids", rules.vocab_size);
    if (ids.size() > kStopsMax) fields.refuse("stop_token_ids", "has too many");
    q.options.end_tokens.insert(q.options.end_tokens.end(), ids.begin(), ids.end());
  }
  q.salt = fields.text("cache_salt", "");
  q.token_ids = fields.boolean("return_token_ids", false);
  q.ids_for_texts = fields.boolean("return_tokens_as_token_ids", false);
  q.timings = fields.boolean("timings_per_token", false);
  // What other servers offer: as much of it as is the same as without.
  fields.only("repeat_penalty", 1);
  fields.only("min_tokens", 0);
  fields.only("priority", 0);
  fields.only("use_beam_search", false);
  fields.only("length_penalty", 1);
  fields.only("skip_special_tokens", true);
  fields.only("spaces_between_special_tokens", true);
  fields.only("include_stop_str_in_output", false);
  for (const std::string& name : about_the_caller()) fields.has(name.c_str());
}

void read_prompt_log_probs(JsonFields& fields, Question& q) {
  if (!fields.has("prompt_logprobs")) return;
  q.options.prompt_top_log_probs = fields.integer("prompt_logprobs", 0, kTopLogProbsMax);
  if (q.stream) fields.refuse("prompt_logprobs", "is not for streams");
}

ApiResult<Question> checked(JsonFields& fields,
                            const ReadingRules& rules,
                            std::optional<int64_t> tokens_max,
                            const char* prompt,
                            Question q) {
  fields.refuse_unknown({}, "is not supported by this server");
  if (q.answers() > kAnswersMax)
    fields.refuse("n", fmt::format("asks for {} answers; at most {}", q.answers(), kAnswersMax));
  if (fields.problem()) return tl::unexpected(api_error(fields.problem(), kWhere));
  if (std::find(rules.names.begin(), rules.names.end(), q.model) == rules.names.end())
    return tl::unexpected(
        ApiError{.status = 404,
                 .message = fmt::format("there is no model {} here; this server has {}",
                                        printable(q.model),
                                        printable(rules.names.front())),
                 .param = "model",
                 .code = "model_not_found"});
  if (const auto valid = engine::validate(q.options.sampling, rules.vocab_size); !valid)
    return tl::unexpected(api_error(valid.error()));
  int64_t longest = 0;
  for (const Prompt& p : q.prompts) longest = std::max(longest, std::ssize(p.ids));
  const int64_t room = rules.context - longest;
  q.no_answer = tokens_max == 0;
  // A prompt that is only scored needs no room behind it.
  const int64_t least = q.no_answer && q.options.prompt_top_log_probs ? 0 : 1;
  if (room < least && !rules.counts)
    return tl::unexpected(does_not_fit(fmt::format("{} tokens", longest), rules, prompt));
  // An answer that would go on beyond the context ends there, and says so ("length").
  q.options.tokens_max =
      std::clamp<int64_t>(tokens_max.value_or(room), least, std::max<int64_t>(least, room));
  if (!rules.counts) check_log_probs(fields, q);
  if (fields.problem()) return tl::unexpected(api_error(fields.problem(), kWhere));
  return q;
}

ApiResult<Question> read_completion(std::string_view body, const ReadingRules& rules) {
  const ApiResult<Json> json = parse_request(body);
  if (!json) return tl::unexpected(json.error());
  JsonProblem problem{.code = Code::kInvalidInput};
  JsonFields fields(*json, kWhere, problem);
  Question q;
  read_shared_fields(fields, rules, q);
  const ApiResult<void> fits = read_prompts(fields, rules, q);
  if (fields.has("logprobs"))
    q.options.top_log_probs = fields.integer("logprobs", 0, kTopLogProbsMax);
  if (fields.has("best_of")) fields.only("best_of", q.choices);
  read_prompt_log_probs(fields, q);
  q.echo = fields.boolean("echo", false);
  if (q.echo && q.options.top_log_probs && !q.options.prompt_top_log_probs)
    q.options.prompt_top_log_probs = q.options.top_log_probs;
  fields.only("suffix", "");
  const bool about_prompt = q.echo || q.options.prompt_top_log_probs;
  const int64_t tokens_max = fields.integer("max_tokens", about_prompt ? 0 : 1, INT32_MAX, 16);
  if (!fits && !problem) return tl::unexpected(fits.error());
  return checked(fields, rules, tokens_max, "prompt", std::move(q));
}

}  // namespace ferry::serve
