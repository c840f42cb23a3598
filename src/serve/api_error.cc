#include "serve/api_error.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

namespace ferry::serve {
namespace {

using Json = nlohmann::ordered_json;

/// The kinds that OpenAI's clients know.
const char* openai_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    default: return status < 500 ? "invalid_request_error" : "server_error";
  }
}

const char* anthropic_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    default: return status < 500 ? "invalid_request_error" : "api_error";
  }
}

/// The error's field and code, as far as they look like names: what a client has made up stays out of logs.
std::string note_of(const ApiError& e) {
  constexpr size_t kNameBytesMax = 64;
  std::string note;
  for (const std::string& name : {e.param, e.code}) {
    const bool plain =
        name.size() <= kNameBytesMax && std::all_of(name.begin(), name.end(), [](char c) {
          return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 std::string_view("_.[]-").find(c) != std::string_view::npos;
        });
    if (!name.empty() && plain) note += (note.empty() ? "" : ", ") + name;
  }
  return note;
}

Json or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

}  // namespace

std::string error_json(const ApiError& e, ApiStyle style) {
  if (style == ApiStyle::kAnthropic)
    return json_text(Json{{"type", "error"},
                          {"error", {{"type", anthropic_type(e.status)}, {"message", e.message}}}});
  return json_text(Json{{"error",
                         {{"message", e.message},
                          {"type", openai_type(e.status)},
                          {"param", or_null(e.param)},
                          {"code", or_null(e.code)}}}});
}

HttpResponse error_response(const ApiError& error, ApiStyle style) {
  HttpResponse r{.status = error.status,
                 .headers = error.headers,
                 .body = error_json(error, style),
                 .note = note_of(error)};
  if (error.status == 503 || error.status == 429) r.headers.emplace_back("Retry-After", "1");
  if (error.status == 401) r.headers.emplace_back("WWW-Authenticate", "Bearer");
  return r;
}

ApiError api_error(const Status& status) {
  switch (status.code) {
    case Code::kInvalidInput:
    case Code::kNotFound:
    case Code::kCorrupt: return {.status = 400, .message = status.message};
    case Code::kExhausted:
      return {.status = 503, .message = status.message, .code = "server_overloaded"};
    case Code::kTimeout:
    case Code::kUnavailable:
    case Code::kVerdict: break;
  }
  return {.status = 500, .message = status.message};
}

ApiError api_error(const JsonProblem& problem, const std::string& where) {
  ApiError error = api_error(*problem.status);
  if (problem.place.size() > where.size() + 2) error.param = problem.place.substr(where.size() + 2);
  for (size_t at; (at = error.param.find(": ")) != std::string::npos;)
    error.param.replace(at, 2, ".");
  return error;
}

ApiError at_its_place(ApiError error, const std::vector<std::string>& places) {
  for (size_t i = 0; i < places.size(); ++i) {
    const std::string message = "messages[" + std::to_string(i) + "]";
    if (!error.param.starts_with(message)) continue;
    if (const size_t at = error.message.find(message); at != error.message.npos)
      error.message.replace(at, message.size(), places[i]);
    error.param.replace(0, message.size(), places[i]);
    break;
  }
  return error;
}

ApiError by_its_name(ApiError error,
                     std::initializer_list<std::pair<std::string_view, std::string_view>> names) {
  for (const auto& [chat, own] : names) {
    if (error.param != chat && !error.param.starts_with(std::string(chat) + ".")) continue;
    if (const size_t at = error.message.find(chat); at != error.message.npos)
      error.message.replace(at, chat.size(), own);
    error.param.replace(0, chat.size(), own);
    break;
  }
  return error;
}

}  // namespace ferry::serve
