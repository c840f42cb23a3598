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

/// How messages about a request begin, as a rule.
constexpr std::string_view kBegins = "request: ";

/// Whether a field is this one, or within it.
bool has_part(std::string_view field, std::string_view part) {
  return field.starts_with(part) &&
         (field.size() == part.size() || field[part.size()] == '.' || field[part.size()] == '[');
}

/// How messages write a field: as its name is, or, from JsonFields, tools[0]: function: "name".
std::vector<std::string> spellings(const std::string& name) {
  std::string objects = name;
  for (size_t at; (at = objects.find('.')) != std::string::npos;) objects.replace(at, 1, ": ");
  const size_t dot = objects.rfind(": ");
  const size_t leaf = dot == std::string::npos ? 0 : dot + 2;
  const std::string quoted = objects.substr(0, leaf) + '"' + objects.substr(leaf) + '"';
  return {name, quoted, objects};
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

ApiError at_its_place(ApiError error, const Places& places) {
  const std::pair<std::string, std::string>* longest = nullptr;
  for (const auto& place : places)
    if (has_part(error.param, place.first) &&
        (longest == nullptr || place.first.size() > longest->first.size()))
      longest = &place;
  if (longest == nullptr) return error;
  const auto& [chat, own] = *longest;
  error.param.replace(0, chat.size(), own);
  const std::vector<std::string> from = spellings(chat), to = spellings(own);
  // Of a message only what it begins with: what stands behind that may be the request's text.
  const size_t at = error.message.starts_with(kBegins) ? kBegins.size() : 0;
  for (size_t i = 0; i < from.size(); ++i)
    if (std::string_view(error.message).substr(at).starts_with(from[i])) {
      error.message.replace(at, from[i].size(), to[i]);
      break;
    }
  return error;
}

}  // namespace ferry::serve
