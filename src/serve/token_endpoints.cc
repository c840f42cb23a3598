#include "serve/token_endpoints.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "serve/chat_request.h"
#include "serve/question_fields.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::json;
using Ordered = nlohmann::ordered_json;

std::string tokens_json(const std::vector<int32_t>& ids, bool texts, const ReadingRules& rules) {
  Ordered j = {{"count", ids.size()}, {"max_model_len", rules.context}, {"tokens", ids}};
  if (texts) {
    Ordered all = Ordered::array();
    for (const int32_t id : ids)
      all.push_back(std::string(rules.model.texts.tokenizer->token_bytes(id)));
    j["token_strs"] = std::move(all);
  }
  return json_text(j);
}

}  // namespace

ApiResult<std::string> tokenize_request(std::string_view body, const ReadingRules& rules) {
  const ApiResult<Ordered> request = parse_ordered_request(body);
  if (!request) return tl::unexpected(request.error());
  if (request->contains("messages")) {
    ReadingRules counting = rules;
    counting.counts = true;
    const ApiResult<Question> question = read_parsed_chat(*request, counting);
    if (!question) return tl::unexpected(question.error());
    return tokens_json(question->prompts.front().ids, false, rules);
  }
  const Json json = *request;
  JsonProblem problem{.code = Code::kInvalidInput};
  JsonFields fields(json, kWhere, problem);
  const bool llama = fields.has("content");
  const std::string text = fields.text(llama ? "content" : "prompt");
  const bool special = fields.boolean(llama ? "add_special" : "add_special_tokens", !llama);
  const bool texts = fields.boolean("return_token_strs", false);
  fields.text("model", "");
  fields.refuse_unknown({}, "is not supported by this server");
  if (problem) return tl::unexpected(api_error(problem, kWhere));
  return tokens_json(ids_of_text(rules.model.texts, text, special), texts, rules);
}

ApiResult<std::string> detokenize_request(std::string_view body, const ReadingRules& rules) {
  const ApiResult<Json> json = parse_request(body);
  if (!json) return tl::unexpected(json.error());
  JsonProblem problem{.code = Code::kInvalidInput};
  JsonFields fields(*json, kWhere, problem);
  const std::vector<int32_t> ids = read_token_ids(fields, "tokens", rules.vocab_size);
  fields.text("model", "");
  fields.refuse_unknown({}, "is not supported by this server");
  if (problem) return tl::unexpected(api_error(problem, kWhere));
  const std::string text = rules.model.texts.tokenizer->decode(ids);
  return json_text(Ordered{{"prompt", text}, {"content", text}});
}

}  // namespace ferry::serve
