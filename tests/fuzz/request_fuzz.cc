// Fuzzer of requests: the first byte chooses the endpoint and the model's habits, the rest is a body.
// Whatever it says, it is refused with words, or becomes a question that the engine can be asked and
// whose answer can be written.
#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/check.h"
#include "serve/answer_writer.h"
#include "serve/chat_request.h"
#include "serve/messages_api.h"
#include "serve/request_test_support.h"
#include "serve/responses_api.h"
#include "serve/token_endpoints.h"

namespace {

using namespace ferry;
using namespace ferry::serve;

constexpr const char* kPlain =
    "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.content }}<|eos|>{% endfor %}";
constexpr const char* kThinksAndCalls =
    "{% for t in tools %}<tool_call>{{ t.function.name }}{% endfor %}"
    "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.reasoning_content }}{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %}<|eos|>{% endfor %}"
    "{% if thinking %}<think>\n{% endif %}";

void check_refusal(const ApiError& error, ApiStyle style) {
  check((error.status == 400 || error.status == 404) && !error.message.empty(),
        "fuzz: {} {}",
        error.status,
        error.message);
  const nlohmann::json told = nlohmann::json::parse(error_json(error, style));
  check(!told.at("error").at("message").get<std::string>().empty(), "fuzz: an error without words");
}

/// Texts and their tokens.
void convert(const ApiResult<std::string>& result, ApiStyle style) {
  if (!result) return check_refusal(result.error(), style);
  check(nlohmann::json::parse(*result).is_object(), "fuzz: {}", *result);
}

void check_question(const Question& q, const ReadingRules& rules) {
  check(!q.prompts.empty() && q.choices >= 1 && q.answers() <= kAnswersMax,
        "fuzz: {} prompts, {} choices",
        q.prompts.size(),
        q.choices);
  const auto is_token = [&](int32_t id) { return id >= 0 && id < rules.vocab_size; };
  int64_t longest = 0;
  for (const Prompt& p : q.prompts) {
    longest = std::max(longest, std::ssize(p.ids));
    check(!p.ids.empty() && std::all_of(p.ids.begin(), p.ids.end(), is_token),
          "fuzz: a prompt of no tokens, or of others");
  }
  const engine::GenerateOptions& o = q.options;
  check(o.tokens_max >= (q.no_answer && o.prompt_top_log_probs ? 0 : 1) && longest + o.tokens_max <= rules.context,
        "fuzz: {} tokens after {}",
        o.tokens_max,
        longest);
  check(engine::validate(o.sampling, rules.vocab_size).has_value(), "fuzz: bad sampling");
  check(std::all_of(o.end_tokens.begin(), o.end_tokens.end(), is_token), "fuzz: bad ends");
  for (const std::string& stop : q.stop) check(!stop.empty(), "fuzz: an empty stop");
  check(o.constraint == nullptr || (o.constraint->automaton != nullptr && !o.end_tokens.empty()),
        "fuzz: a form without an end");
  check(!q.one_call || q.chat, "fuzz: calls in a text");
}

/// An answer that says nothing, in the words of the API that asked.
void write_answer(const Question& q, const ModelInfo& model, WriterMaker maker) {
  const AnswerHead head{.id = "0", .model = q.model, .fingerprint = "f", .created_s = 1};
  const auto writer = maker(model, q, head);
  std::vector<Answer> answers(static_cast<size_t>(q.answers()));
  for (Answer& a : answers) a.end = AnswerEnd::kStop;
  check(nlohmann::json::parse(writer->document(answers, {})).is_object(), "fuzz: no document");
}

void ask(ApiResult<Question> (*reader)(std::string_view, const ReadingRules&),
         std::string_view body,
         const ReadingRules& rules,
         WriterMaker maker,
         ApiStyle style = ApiStyle::kOpenAi) {
  const ApiResult<Question> question = reader(body, rules);
  if (!question) return check_refusal(question.error(), style);
  check_question(*question, rules);
  write_answer(*question, rules.model, maker);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ByteModelRules plain(kPlain), skilled(kThinksAndCalls);
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const ReadingRules rules = (data[0] & 1) != 0 ? skilled.rules() : plain.rules();
  switch (data[0] / 2 % 7) {
    case 0: ask(read_chat, body, rules, chat_writer); break;
    case 1: ask(read_completion, body, rules, completion_writer); break;
    case 2: ask(read_response_request, body, rules, response_writer); break;
    case 3: ask(read_message_request, body, rules, message_writer, ApiStyle::kAnthropic); break;
    case 4: convert(count_tokens_request(body, rules), ApiStyle::kAnthropic); break;
    case 5: convert(tokenize_request(body, rules), ApiStyle::kOpenAi); break;
    case 6: convert(detokenize_request(body, rules), ApiStyle::kOpenAi); break;
  }
  return 0;
}
