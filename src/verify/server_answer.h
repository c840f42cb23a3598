// What an OpenAI-compatible server answered, read from JSON that nobody vouches for: the forms in
// which the servers that people run give tokens and their log-probabilities.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ferry::verify {

/// A token as a server names it: by its id, by its text, by both.
struct NamedToken {
  std::optional<int32_t> id;
  std::string
      text;  // its bytes where the server gives them, otherwise what it shows of them; empty: unknown
  std::optional<double> log_prob;
};

/// One position.
struct AnswerToken {
  NamedToken chosen;
  std::vector<NamedToken> top;  // with log-probabilities, in no order; may hold the chosen one
};

struct ServerAnswer {
  std::string text;
  std::string reasoning;  // what the server took for thoughts, and out of the text
  std::string finish;     // "stop", "length", ...; empty: not told
  std::optional<int64_t> prompt_tokens, answer_tokens;  // as it counts them
  std::optional<int64_t> cached_tokens;                 // of the prompt, that it says it had kept
  std::vector<int32_t> prompt_ids;                      // if it says which tokens it was asked
  /// The prompt's tokens, if they were asked for: the first one has no log-probability. A server that
  /// tells no chosen token (vLLM's prompt_logprobs) has `top` alone.
  std::vector<AnswerToken> prompt;
  std::vector<AnswerToken> tokens;
};

/// Reads the body of an answer of /v1/completions or /v1/chat/completions. `echoed`: the prompt was
/// to be repeated. `where` begins messages. Errors: kUnavailable: not JSON, a field that is missing,
/// of another type or out of bounds; a log-probability above 0 or not a number.
Result<ServerAnswer> read_answer(std::string_view body, const std::string& where, bool echoed);

/// The ids of /v1/models. Errors: kUnavailable.
Result<std::vector<std::string>> read_models(std::string_view body, const std::string& where);

/// The tokens of /tokenize. Errors: kUnavailable.
Result<std::vector<int32_t>> read_tokens(std::string_view body, const std::string& where);

/// What an error's body says, fit for a message; of one without words, its beginning.
std::string error_of(std::string_view body);

}  // namespace ferry::verify
