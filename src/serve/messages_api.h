// Anthropic's way to ask for a chat: POST /v1/messages and /v1/messages/count_tokens.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "serve/answer_writer.h"
#include "serve/question_fields.h"

namespace ferry::serve {

/// Translates the request into one for /v1/chat/completions, and reads that. A last message of the
/// assistant's is gone on with. Refuses what a text model cannot see, and tools of Anthropic's own.
ApiResult<Question> read_message_request(std::string_view body, const ReadingRules& rules);

/// {"input_tokens": N} of the same request; it needs no max_tokens.
ApiResult<std::string> count_tokens_request(std::string_view body, const ReadingRules& rules);

std::unique_ptr<AnswerWriter> message_writer(const ModelInfo& model,
                                             const Question& question,
                                             const AnswerHead& head);

}  // namespace ferry::serve
