// What a client is told when it cannot be answered, in the shape that its API gives errors.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

#include "base/json_fields.h"
#include "base/result.h"
#include "serve/http_message.h"

namespace ferry::serve {

struct ApiError {
  int status = 400;  // of HTTP
  std::string message = {};
  std::string param = {};    // the field at fault: "messages[0].role"; empty: none
  std::string code = {};     // a name that programs know; empty: none
  HttpHeaders headers = {};  // of its response
  bool takes_long =
      false;  // none: reading was left off, for who has the time (ReadingRules::in_short)
};

template <typename T>
using ApiResult = tl::expected<T, ApiError>;

/// Whose shape.
enum class ApiStyle { kOpenAi, kAnthropic };

/// As the body of a response, or as an event of a stream.
std::string error_json(const ApiError& error, ApiStyle style);
/// With its headers, and Retry-After where trying again later helps.
HttpResponse error_response(const ApiError& error, ApiStyle style);

/// A failure on the way to an answer, as its client should see it.
ApiError api_error(const Status& status);
/// The failure of reading a request whose readers' messages begin with `where`.
ApiError api_error(const JsonProblem& problem, const std::string& where);

/// Where the parts of a chat came from that a request was translated into, by their names in errors: what
/// "messages[0].content" was as "system".
using Places = std::vector<std::pair<std::string, std::string>>;
/// The failure of such a chat, with the request's name for the field: that of the longest part which has it.
ApiError at_its_place(ApiError error, const Places& places);

}  // namespace ferry::serve
