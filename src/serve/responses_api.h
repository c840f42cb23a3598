// OpenAI's newer way to ask for a chat: POST /v1/responses. Nothing is stored: a conversation is sent
// whole each time.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "serve/answer_writer.h"
#include "serve/question_fields.h"

namespace ferry::serve {

/// Translates the request into one for /v1/chat/completions, and reads that.
ApiResult<Question> read_response_request(std::string_view body, const ReadingRules& rules);

/// POST /v1/responses/input_tokens: how many tokens such a request has.
ApiResult<std::string> count_response_tokens(std::string_view body, const ReadingRules& rules);

std::unique_ptr<AnswerWriter> response_writer(const ModelInfo& model,
                                              const Question& question,
                                              const AnswerHead& head);

}  // namespace ferry::serve
