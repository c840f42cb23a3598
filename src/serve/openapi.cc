#include "serve/openapi.h"

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/json.h"
#include "base/version.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::ordered_json;

Json of_type(const char* type) { return {{"type", type}}; }
Json whole(int64_t low, int64_t high) {
  return {{"type", "integer"}, {"minimum", low}, {"maximum", high}};
}
Json number(double low, double high) {
  return {{"type", "number"}, {"minimum", low}, {"maximum", high}};
}
Json list_of(Json items) { return {{"type", "array"}, {"items", std::move(items)}}; }
Json one_of(std::initializer_list<const char*> names) {
  Json values = Json::array();
  for (const char* name : names) values.push_back(name);
  return {{"type", "string"}, {"enum", std::move(values)}};
}
Json any_of(std::initializer_list<Json> schemas) {
  Json all = Json::array();
  for (const Json& s : schemas) all.push_back(s);
  return {{"anyOf", std::move(all)}};
}
Json object(Json properties, std::initializer_list<const char*> required = {}) {
  Json j = {{"type", "object"}, {"properties", std::move(properties)}};
  if (required.size() == 0) return j;
  j["required"] = Json::array();
  for (const char* name : required) j["required"].push_back(name);
  return j;
}

Json text() { return of_type("string"); }

/// What chat and text completions share.
Json completion_fields() {
  Json stop_text = {{"type", "string"}, {"minLength", 1}, {"maxLength", 1024}};
  Json stops = list_of(stop_text);
  stops["maxItems"] = 32;
  return {{"model", text()},
          {"stream", of_type("boolean")},
          {"stream_options", object({{"include_usage", of_type("boolean")}})},
          {"n", whole(1, 64)},
          {"temperature", number(0, 100)},
          {"top_p", {{"type", "number"}, {"exclusiveMinimum", 0}, {"maximum", 1}}},
          {"top_k", whole(-1, INT32_MAX)},
          {"min_p", number(0, 1)},
          {"repetition_penalty", number(0.01, 100)},
          {"presence_penalty", number(-100, 100)},
          {"frequency_penalty", number(-100, 100)},
          {"logit_bias", {{"type", "object"}, {"additionalProperties", number(-1000, 1000)}}},
          {"seed", of_type("integer")},
          {"stop", any_of({stop_text, stops})},
          {"stop_token_ids", list_of(whole(0, INT32_MAX))},
          {"ignore_eos", of_type("boolean")},
          {"prompt_logprobs", whole(0, 20)},
          {"cache_salt", text()},
          {"return_token_ids", of_type("boolean")},
          {"return_tokens_as_token_ids", of_type("boolean")},
          {"timings_per_token", of_type("boolean")},
          {"user", text()}};
}

Json message() {
  const Json part =
      any_of({object({{"type", one_of({"text"})}, {"text", text()}}, {"type", "text"}),
              object({{"type", one_of({"refusal"})}, {"refusal", text()}}, {"type", "refusal"})});
  const Json call = object(
      {{"id", text()},
       {"type", one_of({"function"})},
       {"function", object({{"name", text()}, {"arguments", text()}}, {"name", "arguments"})}},
      {"function"});
  return object({{"role", one_of({"system", "developer", "user", "assistant", "tool"})},
                 {"content", any_of({text(), list_of(part), of_type("null")})},
                 {"name", text()},
                 {"tool_call_id", text()},
                 {"tool_calls", list_of(call)},
                 {"reasoning_content", text()},
                 {"refusal", any_of({text(), of_type("null")})},
                 {"prefix", of_type("boolean")}},
                {"role"});
}

Json chat_request() {
  Json fields = completion_fields();
  fields["messages"] = list_of(message());
  fields["messages"]["minItems"] = 1;
  fields["max_tokens"] = whole(1, INT32_MAX);
  fields["max_completion_tokens"] = whole(1, INT32_MAX);
  fields["logprobs"] = of_type("boolean");
  fields["top_logprobs"] = whole(0, 20);
  fields["tools"] = list_of(object({{"type", one_of({"function"})},
                                    {"function",
                                     object({{"name", text()},
                                             {"description", text()},
                                             {"parameters", of_type("object")},
                                             {"strict", of_type("boolean")}},
                                            {"name"})}},
                                   {"type", "function"}));
  fields["tool_choice"] = any_of(
      {one_of({"none", "auto", "required"}),
       object({{"type", one_of({"function"})}, {"function", object({{"name", text()}}, {"name"})}},
              {"type", "function"})});
  fields["response_format"] = any_of(
      {object({{"type", one_of({"text"})}}, {"type"}),
       object({{"type", one_of({"json_object"})}, {"schema", of_type("object")}}, {"type"}),
       object(
           {{"type", one_of({"json_schema"})},
            {"json_schema",
             object(
                 {{"name", text()}, {"schema", of_type("object")}, {"strict", of_type("boolean")}},
                 {"schema"})}},
           {"type", "json_schema"})});
  fields["parallel_tool_calls"] = of_type("boolean");
  fields["thinking"] = object({{"type", one_of({"enabled", "adaptive", "disabled"})}}, {"type"});
  fields["reasoning_effort"] = one_of({"none", "minimal", "low", "medium", "high", "xhigh", "max"});
  fields["chat_template_kwargs"] = of_type("object");
  fields["continue_final_message"] = of_type("boolean");
  return object(std::move(fields), {"messages"});
}

Json completion_request() {
  Json fields = completion_fields();
  const Json ids = list_of(whole(0, INT32_MAX));
  fields["prompt"] = any_of({text(), ids, list_of(text()), list_of(ids)});
  fields["add_special_tokens"] = of_type("boolean");
  fields["max_tokens"] = whole(0, INT32_MAX);
  fields["logprobs"] = whole(0, 20);
  fields["echo"] = of_type("boolean");
  return object(std::move(fields), {"prompt"});
}

Json response_request() {
  return object({{"model", text()},
                 {"input", any_of({text(), list_of(of_type("object"))})},
                 {"instructions", text()},
                 {"max_output_tokens", whole(1, INT32_MAX)},
                 {"temperature", number(0, 100)},
                 {"top_p", {{"type", "number"}, {"exclusiveMinimum", 0}, {"maximum", 1}}},
                 {"stream", of_type("boolean")},
                 {"tools", list_of(of_type("object"))},
                 {"reasoning", object({{"effort", text()}})}},
                {"input"});
}

Json message_request() {
  return object({{"model", text()},
                 {"messages", list_of(of_type("object"))},
                 {"system", any_of({text(), list_of(of_type("object"))})},
                 {"max_tokens", whole(1, INT32_MAX)},
                 {"temperature", number(0, 100)},
                 {"top_p", {{"type", "number"}, {"exclusiveMinimum", 0}, {"maximum", 1}}},
                 {"top_k", whole(-1, INT32_MAX)},
                 {"stop_sequences", list_of(text())},
                 {"stream", of_type("boolean")},
                 {"tools", list_of(of_type("object"))}},
                {"messages", "max_tokens"});
}

Json body(const char* type, const Json& schema) { return {{type, {{"schema", schema}}}}; }

Json answer(const char* what, const char* type, Json schema) {
  Json content = body(type, schema);
  return {{"description", what}, {"content", std::move(content)}};
}

/// Refusals that any path that runs the model can give.
void add_refusals(Json& responses, const char* schema) {
  for (const auto& [status, what] : std::initializer_list<std::pair<const char*, const char*>>{
           {"400", "what is wrong, by name"},
           {"401", "no valid key"},
           {"403", "a page of another origin, or a host that is none of the server's names"},
           {"404", "no such model"},
           {"408", "the body did not come in time"},
           {"413", "too large"},
           {"415", "the body has a Content-Encoding"},
           {"431", "the head is too large"},
           {"500", "the model failed"},
           {"503", "busy, loading or ending"}})
    responses[status] = answer(what, "application/json", {{"$ref", schema}});
}

Json post(const char* what, Json request, bool streams, const char* error) {
  Json responses = {{"200", answer("the answer", "application/json", of_type("object"))}};
  if (streams) responses["200"]["content"]["text/event-stream"] = {{"schema", text()}};
  add_refusals(responses, error);
  return {{"post",
           {{"summary", what},
            {"requestBody", {{"required", true}, {"content", body("application/json", request)}}},
            {"responses", std::move(responses)}}}};
}

Json get(const char* what, const char* type, bool guarded) {
  Json responses = {{"200",
                     answer("as asked",
                            type,
                            std::string(type) == "application/json" ? of_type("object") : text())}};
  responses["403"] =
      answer("a page of another origin, or a host that is none of the server's names",
             "application/json",
             {{"$ref", "#/components/schemas/Error"}});
  responses["503"] = answer("not now", "application/json", of_type("object"));
  if (guarded)
    responses["401"] =
        answer("no valid key", "application/json", {{"$ref", "#/components/schemas/Error"}});
  Json operation = {{"summary", what}, {"responses", std::move(responses)}};
  if (!guarded) operation["security"] = Json::array();
  return {{"get", std::move(operation)}};
}

}  // namespace

std::string openapi_json() {
  constexpr const char* kError = "#/components/schemas/Error";
  constexpr const char* kMessageError = "#/components/schemas/MessageError";
  constexpr const char* kJson = "application/json";
  const Json error_fields = object({{"message", text()},
                                    {"type", text()},
                                    {"param", any_of({text(), of_type("null")})},
                                    {"code", any_of({text(), of_type("null")})}},
                                   {"message", "type"});
  const Json message_error = object({{"message", text()}, {"type", text()}}, {"message", "type"});
  const Json j = {
      {"openapi", "3.1.0"},
      {"info", {{"title", "Ferry"}, {"version", kVersion}}},
      {"security", {{{"key", Json::array()}}}},
      {"paths",
       {{"/v1/chat/completions", post("Goes on with a conversation", chat_request(), true, kError)},
        {"/v1/completions", post("Goes on with a text", completion_request(), true, kError)},
        {"/v1/responses", post("The same as OpenAI's Responses", response_request(), true, kError)},
        {"/v1/responses/input_tokens",
         post("Tokens of such a request", response_request(), false, kError)},
        {"/v1/messages",
         post("The same as Anthropic's Messages", message_request(), true, kMessageError)},
        {"/v1/messages/count_tokens",
         post("Tokens of such a request", message_request(), false, kMessageError)},
        {"/tokenize",
         post("Text to tokens",
              object({{"prompt", text()}, {"add_special_tokens", of_type("boolean")}}, {"prompt"}),
              false,
              kError)},
        {"/detokenize",
         post("Tokens to text",
              object({{"tokens", list_of(whole(0, INT32_MAX))}}, {"tokens"}),
              false,
              kError)},
        {"/v1/models", get("The names of the model", kJson, true)},
        {"/ferry/passport", get("What the model is", kJson, true)},
        {"/health", get("Whether it answers", kJson, false)},
        {"/version", get("Of the program", kJson, false)},
        {"/metrics", get("For Prometheus", "text/plain", false)}}},
      {"components",
       {{"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}},
        {"schemas",
         {{"Error", object({{"error", error_fields}}, {"error"})},
          {"MessageError",
           object({{"type", one_of({"error"})}, {"error", message_error}}, {"error"})}}}}}};
  return json_text(j);
}

}  // namespace ferry::serve
