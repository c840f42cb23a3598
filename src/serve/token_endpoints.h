// POST /tokenize and /detokenize: the model's tokenizer for who counts tokens, as vLLM and llama.cpp
// offer it.
#pragma once

#include <string>
#include <string_view>

#include "serve/api_error.h"
#include "serve/question_fields.h"

namespace ferry::serve {

/// {"prompt": TEXT, "add_special_tokens": true} (vLLM), {"content": TEXT, "add_special": false}
/// (llama.cpp) or a chat's {"messages": [..]}; gives {"count", "max_model_len", "tokens"}, and
/// "token_strs" on demand ("return_token_strs").
ApiResult<std::string> tokenize_request(std::string_view body, const ReadingRules& rules);

/// {"tokens": [..]}; gives the text as "prompt" (vLLM) and "content" (llama.cpp).
ApiResult<std::string> detokenize_request(std::string_view body, const ReadingRules& rules);

}  // namespace ferry::serve
