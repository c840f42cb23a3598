// The fields that OpenAI's chat and text completions share, as clients and vLLM's and llama.cpp's
// users send them. Each is honoured, or refused by its name.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fields.h"
#include "serve/api_error.h"
#include "serve/form_cache.h"
#include "serve/model_info.h"
#include "serve/question.h"

namespace ferry::serve {

inline constexpr int64_t kAnswersMax = 64;  // of one request
inline constexpr int64_t kTopLogProbsMax = 20;

/// How messages about a request's fields begin.
inline constexpr const char* kWhere = "request";

/// What every request is read with.
struct ReadingRules {
  const ModelInfo& model;
  int64_t vocab_size;
  int64_t context;                          // tokens that a request has room for, with its answer
  const std::vector<std::string>& names;    // under which the model is served
  const engine::SamplingOptions& sampling;  // what a request does not say
  FormCache& forms;                         // of answers
  uint64_t seed = 0;                        // of a request that names none
  bool counts = false;                      // nothing will be answered, so it need not fit
  bool in_short = false;                    // what takes long is left off: ApiError::takes_long
};

/// As the model's generation_config.json has it; else what OpenAI's API does without being told.
engine::SamplingOptions default_sampling(const ModelTexts& texts);

/// The request as a JSON object.
ApiResult<nlohmann::json> parse_request(std::string_view body);
/// The same in the order of its fields. Errors: parse_request's; parse_ordered_json's, naming the field.
ApiResult<nlohmann::ordered_json> parse_ordered_request(std::string_view body);

/// The ids of a text outside a conversation, as vLLM and llama.cpp read it: the texts of control tokens are these
/// tokens. `begin`: with what texts begin with before it, if it does not stand there.
std::vector<int32_t> ids_of_text(const ModelTexts& texts, std::string_view text, bool begin);

/// A list of ids of the model's vocabulary.
std::vector<int32_t> read_token_ids(JsonFields& fields, const char* name, int64_t vocabulary);

/// Refuses a prompt by its bytes, before it is made tokens, which takes long: one of more than the longest
/// token has for each token that there is room for. `param`: the field, for messages. Where tokens are only
/// counted, all are taken.
ApiResult<void> check_prompt_bytes(size_t bytes, const ReadingRules& rules, const char* param);

/// Reads model, stream, stream_options, n, the sampling fields, stop, stop_token_ids, ignore_eos,
/// cache_salt, return_token_ids, return_tokens_as_token_ids, timings_per_token, and passes over those
/// that say nothing about the answer (user, metadata, ...).
void read_shared_fields(JsonFields& fields, const ReadingRules& rules, Question& question);
/// prompt_logprobs (vLLM): of how many of the most probable tokens at each place of the prompt.
void read_prompt_log_probs(JsonFields& fields, Question& question);
/// Bounds that the fields have together; call it once all were read. `prompt` is the field in which
/// the prompts came, for messages.
ApiResult<Question> checked(JsonFields& fields,
                            const ReadingRules& rules,
                            std::optional<int64_t> tokens_max,
                            const char* prompt,
                            Question question);

/// POST /v1/completions.
ApiResult<Question> read_completion(std::string_view body, const ReadingRules& rules);

}  // namespace ferry::serve
