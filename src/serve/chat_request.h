// POST /v1/chat/completions: a conversation as clients send it, made into what the model's chat
// template expects. The other ways to ask for a chat are translated into this one.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "serve/api_error.h"
#include "serve/question.h"
#include "serve/question_fields.h"

namespace ferry::serve {

/// Content may be text or parts that are text; "developer" is "system". A last message of the
/// assistant's with "prefix" (DeepSeek), or "continue_final_message" (vLLM), is gone on with.
/// Thinking is asked for by "thinking", "reasoning_effort" or "chat_template_kwargs"; where it is not
/// wanted and the template opens a thought all the same, that is closed at once.
ApiResult<Question> read_chat(std::string_view body, const ReadingRules& rules);
/// The same of a request that was read.
ApiResult<Question> read_parsed_chat(const nlohmann::ordered_json& request,
                                     const ReadingRules& rules);

}  // namespace ferry::serve
