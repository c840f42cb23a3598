#include "serve/responses_api.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "serve/chat_request.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::json;
using Ordered = nlohmann::ordered_json;
using Kind = text::AnswerDelta::Kind;

/// Fields of items and parts as answers have them, which say nothing to a model.
const std::set<std::string> kAboutItems = {"id", "status", "annotations", "logprobs"};

/// What an answer repeats of its request, up to so many bytes, is said again with each keep-alive: an agent's
/// instructions and tools are less. Of more, many that wait would keep the network thread busy, and fill what their
/// clients have not taken yet.
constexpr size_t kRepeatedOften = size_t{64} << 10;

/// Text, or parts that are text of any kind. `refusals`: also that an assistant would not answer, which it said.
std::string read_parts(JsonFields& of,
                       const char* name,
                       const Json& content,
                       bool refusals = false) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    of.refuse(name, "must be text, or a list of parts of text");
    return "";
  }
  static const std::set<std::string> kTexts = {
      "input_text", "output_text", "reasoning_text", "summary_text"};
  std::string text;
  size_t index = 0;
  for (const Json& item : content) {
    JsonFields part = of.item(name, item, index);
    const std::string type = part.text("type");
    const bool refusal = refusals && type == "refusal";
    if (!kTexts.contains(type) && !refusal && !part.problem())
      part.refuse("type", "is not text: this model reads text");
    if (index++ > 0) text += '\n';
    text += part.text(refusal ? "refusal" : "text");
    part.refuse_unknown(kAboutItems, "is no field of a part of text");
  }
  return text;
}

/// Items become messages; what the assistant thought and called joins its message. A thought behind
/// which it neither said nor called anything is a message of its own.
class ItemReader {
 public:
  ItemReader(Ordered& messages, Places& places) : messages_(messages), places_(places) {}

  /// `at`: its name.
  void read(JsonFields& item, const std::string& at) {
    const std::string type = item.text("type", "message");
    if (type == "message") {
      Ordered m = {{"role", item.text("role")}};
      m["content"] = read_parts(item, "content", item.at("content"), m["role"] == "assistant");
      if (m["role"] == "assistant" && !thought_.empty()) {
        m["reasoning_content"] = std::exchange(thought_, "");
        places_.emplace_back(next() + ".reasoning_content", thought_at_ + ".content");
      }
      add(std::move(m), at);
    } else if (type == "reasoning") {
      thought_at_ = at;
      if (const Json* const content = item.find("content"))
        thought_ += read_parts(item, "content", *content);
      if (const Json* const summary = item.find("summary")) read_parts(item, "summary", *summary);
      item.only("encrypted_content", nullptr);
    } else if (type == "function_call") {
      Ordered call = {
          {"id", item.text("call_id")},
          {"type", "function"},
          {"function", {{"name", item.text("name")}, {"arguments", item.text("arguments")}}}};
      end_thought();
      if (messages_.empty() || messages_.back()["role"] != "assistant")
        add({{"role", "assistant"}, {"content", nullptr}}, at);
      Ordered& calls = messages_.back()["tool_calls"];
      const std::string all = fmt::format("messages[{}].tool_calls", messages_.size() - 1);
      const std::string name = fmt::format("{}[{}]", all, calls.size());
      if (calls.empty()) places_.emplace_back(all, at);
      places_.emplace_back(name, at);
      places_.emplace_back(name + ".function", at);
      calls.push_back(std::move(call));
    } else if (type == "function_call_output") {
      end_thought();
      places_.emplace_back(next() + ".role", at + ".type");
      places_.emplace_back(next() + ".content", at + ".output");
      places_.emplace_back(next() + ".tool_call_id", at + ".call_id");
      add({{"role", "tool"},
           {"tool_call_id", item.text("call_id")},
           {"content", read_parts(item, "output", item.at("output"))}},
          at);
    } else if (!item.problem()) {
      item.refuse("type", "is not supported by this server");
    }
    item.refuse_unknown(kAboutItems, "is no field of this item");
  }
  /// No more items come.
  void end() { end_thought(); }

 private:
  std::string next() const { return fmt::format("messages[{}]", messages_.size()); }
  void add(Ordered message, const std::string& at) {
    end_thought();
    places_.emplace_back(next(), at);
    messages_.push_back(std::move(message));
  }
  void end_thought() {
    if (thought_.empty()) return;
    places_.emplace_back(next(), thought_at_);
    places_.emplace_back(next() + ".reasoning_content", thought_at_ + ".content");
    messages_.push_back({{"role", "assistant"},
                         {"content", nullptr},
                         {"reasoning_content", std::exchange(thought_, "")}});
  }

  Ordered& messages_;
  Places& places_;
  std::string thought_, thought_at_;
};

void read_tools(JsonFields& fields, const Ordered& request, Ordered& chat, Places& places) {
  Ordered tools = Ordered::array();
  const Json& list = fields.list("tools");
  for (size_t i = 0; i < list.size() && !fields.problem(); ++i) {
    JsonFields tool = fields.item("tools", list[i], i);
    if (tool.text("type") != "function" && !tool.problem())
      tool.refuse("type",
                  "is not \"function\"; this server runs no tools of its own: leave it out, or "
                  "turn it off in the client");
    for (const char* name : {"name", "description", "parameters", "strict"}) tool.has(name);
    tool.refuse_unknown({}, "is no field of a function");
    if (fields.problem()) return;
    Ordered function = request.at("tools").at(i);
    function.erase("type");
    const std::string at = fmt::format("tools[{}]", i);
    places.emplace_back(at + ".function", at);
    tools.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  if (!tools.empty()) chat["tools"] = std::move(tools);
}

void read_choice(JsonFields& fields, const Json& choice, Ordered& chat) {
  if (choice.is_string()) {
    chat["tool_choice"] = choice;
    return;
  }
  if (!choice.is_object())
    return fields.refuse("tool_choice", "must be none, auto, required or a function's name");
  JsonFields which = fields.object("tool_choice");
  if (which.text("type") != "function" && !which.problem())
    return which.refuse("type", "is not \"function\"; this server has no tools of its own");
  chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", which.text("name")}}}};
  which.refuse_unknown({}, "is no field of a choice");
}

void read_text_format(JsonFields& fields, const Ordered& request, Ordered& chat) {
  JsonFields text = fields.object("text");
  text.only("verbosity", "medium");
  if (text.has("format")) {
    JsonFields format = text.object("format");
    const std::string type = format.text("type");
    if (type == "json_schema") {
      Ordered schema = request.at("text").at("format");
      schema.erase("type");
      for (const char* name : {"name", "schema", "strict", "description"}) format.has(name);
      chat["response_format"] = {{"type", type}, {"json_schema", std::move(schema)}};
    } else {
      chat["response_format"] = {{"type", type}};
    }
    format.refuse_unknown({}, "is no field of a format");
  }
  text.refuse_unknown({}, "is not supported by this server");
}

struct Translated {
  Ordered chat;          // the request as /v1/chat/completions would have it
  Places places;         // of its parts
  std::string repeated;  // what the answer repeats of it
};

ApiResult<Translated> translated(std::string_view body) {
  const ApiResult<Ordered> ordered = parse_ordered_request(body);
  if (!ordered) return tl::unexpected(ordered.error());
  const Ordered& request = *ordered;
  const Json json = request;
  JsonProblem problem{.code = Code::kInvalidInput};
  JsonFields fields(json, kWhere, problem);
  Ordered chat = {{"messages", Ordered::array()}};
  if (fields.has("instructions"))
    chat["messages"].push_back({{"role", "system"}, {"content", fields.text("instructions")}});
  Places places = {{"messages", "input"},
                   {"reasoning_effort", "reasoning.effort"},
                   {"response_format.json_schema", "text.format"},
                   {"response_format", "text.format"},
                   {"tool_choice.function", "tool_choice"},
                   {"max_tokens", "max_output_tokens"}};
  const auto is_last_message = [&](const char* name) {
    const std::string message = fmt::format("messages[{}]", chat["messages"].size() - 1);
    places.emplace_back(message, name);
    places.emplace_back(message + ".content", name);
  };
  if (!chat["messages"].empty()) is_last_message("instructions");
  const Json& input = fields.at("input");
  if (input.is_string()) {
    chat["messages"].push_back({{"role", "user"}, {"content", input}});
    is_last_message("input");
  } else if (!input.is_null()) {
    const Json& list = fields.list("input");
    ItemReader reader(chat["messages"], places);
    for (size_t i = 0; i < list.size() && !problem; ++i) {
      JsonFields item = fields.item("input", list[i], i);
      reader.read(item, fmt::format("input[{}]", i));
    }
    reader.end();
  }
  if (fields.has("tools")) read_tools(fields, request, chat, places);
  if (const Json* const choice = fields.find("tool_choice")) read_choice(fields, *choice, chat);
  if (fields.has("text")) read_text_format(fields, request, chat);
  if (fields.has("reasoning")) {
    JsonFields reasoning = fields.object("reasoning");
    if (reasoning.has("effort")) chat["reasoning_effort"] = reasoning.text("effort");
    // A summary is of a thought that is kept back: here it is shown whole.
    for (const char* name : {"summary", "generate_summary"}) reasoning.has(name);
    reasoning.refuse_unknown({}, "is no field of reasoning");
  }
  if (fields.has("max_output_tokens"))
    chat["max_tokens"] = fields.integer("max_output_tokens", 1, INT32_MAX);
  for (const char* name : {"model",
                           "temperature",
                           "top_p",
                           "stream",
                           "parallel_tool_calls",
                           "seed",
                           "cache_salt",
                           "chat_template_kwargs"})
    if (fields.has(name)) chat[name] = request.at(name);
  fields.only("truncation", "disabled");
  const char* const stored = "is not supported: this server stores nothing; send the whole request";
  if (fields.boolean("background", false)) fields.refuse("background", stored);
  for (const char* name : {"conversation", "previous_response_id", "prompt"})
    if (fields.has(name)) fields.refuse(name, stored);
  // Thoughts are shown whole: nothing needs to be sent along in secret.
  if (fields.has("include"))
    for (const std::string& what : fields.texts("include"))
      if (what != "reasoning.encrypted_content")
        fields.refuse("include", "has something that this server does not have");
  fields.only("top_logprobs", 0);
  fields.refuse_unknown({"store",
                         "metadata",
                         "client_metadata",
                         "user",
                         "service_tier",
                         "safety_identifier",
                         "prompt_cache_key",
                         "prompt_cache_retention"},
                        "is not supported by this server");
  if (problem) return tl::unexpected(api_error(problem, kWhere));
  Ordered repeated = Ordered::object();
  for (const auto& [name, missing] : std::initializer_list<std::pair<const char*, Ordered>>{
           {"instructions", nullptr},
           {"max_output_tokens", nullptr},
           {"metadata", Ordered::object()},
           {"parallel_tool_calls", true},
           {"reasoning", nullptr},
           {"temperature", nullptr},
           {"text", {{"format", {{"type", "text"}}}}},
           {"tool_choice", "auto"},
           {"tools", Ordered::array()},
           {"top_p", nullptr}})
    repeated[name] = request.contains(name) && !request[name].is_null() ? request[name] : missing;
  return Translated{
      .chat = std::move(chat), .places = std::move(places), .repeated = json_text(repeated)};
}

/// Answers as items, and as events about them.
class ResponseWriter : public AnswerWriter {
 public:
  ResponseWriter(const Question& question, AnswerHead head)
      : question_(question), head_(std::move(head)) {}

  std::string document(const std::vector<Answer>& answers, const AnswerUsage& usage) override {
    return response(&answers.front(), usage);
  }

  std::string keep_alive() override {
    const std::string events = announced();
    if (!events.empty()) return events;
    if (question_.repeated.size() > kRepeatedOften) return AnswerWriter::keep_alive();
    return event_with("response.in_progress", response(nullptr, {}));
  }

  std::string begin(const std::vector<Answer>&, const AnswerUsage&) override { return announced(); }

  std::string more(size_t,
                   const Answer& answer,
                   const AnswerNews& news,
                   const AnswerUsage&) override {
    std::string events;
    for (const text::AnswerDelta& d : news.deltas) {
      switch (d.kind) {
        case Kind::kReasoning:
        case Kind::kContent:
          open(d.kind, answer, events);
          events += event(d.kind == Kind::kContent ? "response.output_text.delta"
                                                   : "response.reasoning_text.delta",
                          part({{"delta", d.text}, {"logprobs", Ordered::array()}}));
          break;
        case Kind::kCall:
          close(answer, events);
          call_ = static_cast<size_t>(d.call);
          open(d.kind, answer, events);
          break;
        case Kind::kArguments:
          events += event("response.function_call_arguments.delta", of_item({{"delta", d.text}}));
          break;
        case Kind::kCallEnd: close(answer, events); break;
      }
    }
    if (!answer.end) return events;
    if (answer.parts.empty()) open(Kind::kContent, answer, events);
    close(answer, events);
    return events;
  }

  std::string end(const std::vector<Answer>& answers, const AnswerUsage& usage) override {
    const bool whole = answers.front().end != AnswerEnd::kLength;
    return event_with(whole ? "response.completed" : "response.incomplete",
                      response(&answers.front(), usage));
  }

  std::string failure(const ApiError& error) override {
    const std::string events = announced();
    return events + event_with("response.failed", response(nullptr, {}, &error));
  }

 private:
  /// What comes before everything else, once.
  std::string announced() {
    if (std::exchange(announced_, true)) return "";
    const std::string begun = response(nullptr, {});
    const std::string created = event_with("response.created", begun);
    return created + event_with("response.in_progress", begun);
  }

  std::string event_with(const char* type, const std::string& response) {
    return fmt::format(
        "event: {0}\ndata: {{\"type\":\"{0}\",\"sequence_number\":{1},\"response\":{2}}}\n\n",
        type,
        events_++,
        response);
  }

  std::string event(const char* type, const Ordered& fields) {
    Ordered j = {{"type", type}, {"sequence_number", events_++}};
    j.update(fields);
    return fmt::format("event: {}\ndata: {}\n\n", type, json_text(j));
  }

  std::string id_of(const char* prefix, size_t index) const {
    return fmt::format("{}{}_{}", prefix, head_.id, index);
  }

  static Ordered text_part(const std::string& text) {
    return {{"type", "output_text"},
            {"text", text},
            {"annotations", Ordered::array()},
            {"logprobs", Ordered::array()}};
  }

  Ordered reasoning_item(size_t index, const std::string* text, const char* status) const {
    Ordered content = Ordered::array();
    if (text != nullptr) content.push_back({{"type", "reasoning_text"}, {"text", *text}});
    return {{"id", id_of("rs_", index)},
            {"type", "reasoning"},
            {"summary", Ordered::array()},
            {"content", std::move(content)},
            {"status", status}};
  }
  Ordered message_item(size_t index, const std::string* text, const char* status) const {
    Ordered content = Ordered::array();
    if (text != nullptr) content.push_back(text_part(*text));
    return {{"id", id_of("msg_", index)},
            {"type", "message"},
            {"role", "assistant"},
            {"status", status},
            {"content", std::move(content)}};
  }
  Ordered call_item(size_t index,
                    const ToolCall& call,
                    std::string_view arguments,
                    const char* status) const {
    return {{"id", id_of("fc_", index)},
            {"type", "function_call"},
            {"call_id", call.id},
            {"name", call.name},
            {"arguments", arguments},
            {"status", status}};
  }

  /// The item at this place of an answer, as it ended: a stream says the same of it as a document does. Of an answer
  /// that says nothing there is one, which is empty.
  Ordered item_of(const Answer& a, size_t index) const {
    const AnswerPart nothing;
    const AnswerPart& part = a.parts.empty() ? nothing : a.parts[index];
    const bool cut = a.end == AnswerEnd::kLength && index + 1 >= a.parts.size() && !part.ended;
    const char* const status = cut ? "incomplete" : "completed";
    if (part.kind == Kind::kReasoning) return reasoning_item(index, &part.text, status);
    if (part.kind == Kind::kContent) return message_item(index, &part.text, status);
    const ToolCall& call = a.calls[part.call];
    return call_item(index, call, call.arguments, status);
  }

  /// Of a whole answer, or (nullptr) of one that has just begun, or failed. What it repeats of the request, which may
  /// be megabytes, is added as the text that it is.
  std::string response(const Answer* a,
                       const AnswerUsage& u,
                       const ApiError* failed = nullptr) const {
    const bool cut = a != nullptr && a->end == AnswerEnd::kLength;
    const char* status = cut ? "incomplete" : "completed";
    if (a == nullptr) status = failed == nullptr ? "in_progress" : "failed";
    Ordered output = Ordered::array();
    if (a != nullptr)
      for (size_t i = 0; i < std::max<size_t>(1, a->parts.size()); ++i)
        output.push_back(item_of(*a, i));
    Ordered j = {{"id", "resp_" + head_.id},
                 {"object", "response"},
                 {"created_at", head_.created_s},
                 {"status", status},
                 {"error", nullptr},
                 {"incomplete_details", nullptr},
                 {"model", head_.model},
                 {"output", std::move(output)},
                 {"previous_response_id", nullptr},
                 {"store", false},
                 {"truncation", "disabled"},
                 {"usage", nullptr}};
    if (cut) j["incomplete_details"] = {{"reason", "max_output_tokens"}};
    if (failed != nullptr) j["error"] = {{"code", "server_error"}, {"message", failed->message}};
    if (a != nullptr)
      j["usage"] = {{"input_tokens", u.prompt},
                    {"input_tokens_details", {{"cached_tokens", u.cached}}},
                    {"output_tokens", u.completion},
                    {"output_tokens_details", {{"reasoning_tokens", u.thought}}},
                    {"total_tokens", u.prompt + u.completion}};
    std::string text = json_text(j);
    if (question_.repeated == "{}") return text;
    text.back() = ',';
    return text.append(question_.repeated, 1);
  }

  // --- the item that is open in a stream ---------------------------------------------------------

  Ordered of_item(Ordered fields) const {
    fields["output_index"] = items_;
    fields["item_id"] = item_id_;
    return fields;
  }
  Ordered part(Ordered fields) const {
    fields["content_index"] = 0;
    return of_item(std::move(fields));
  }

  void open(Kind kind, const Answer& answer, std::string& events) {
    if (open_ && kind_ == kind) return;
    close(answer, events);
    open_ = true;
    kind_ = kind;
    Ordered item;
    if (kind == Kind::kReasoning)
      item = reasoning_item(items_, nullptr, "in_progress");
    else if (kind == Kind::kContent)
      item = message_item(items_, nullptr, "in_progress");
    else
      item = call_item(items_, answer.calls[call_], "", "in_progress");
    item_id_ = item["id"].get<std::string>();
    events += event("response.output_item.added", {{"output_index", items_}, {"item", item}});
    if (kind == Kind::kContent)
      events += event("response.content_part.added", part({{"part", text_part("")}}));
  }

  void close(const Answer& answer, std::string& events) {
    if (!std::exchange(open_, false)) return;
    const std::string text = answer.parts.empty() ? "" : answer.parts[items_].text;
    if (kind_ == Kind::kReasoning) {
      events += event("response.reasoning_text.done", part({{"text", text}}));
    } else if (kind_ == Kind::kContent) {
      events += event("response.output_text.done",
                      part({{"text", text}, {"logprobs", Ordered::array()}}));
      events += event("response.content_part.done", part({{"part", text_part(text)}}));
    } else {
      const ToolCall& call = answer.calls[call_];
      events += event("response.function_call_arguments.done",
                      of_item({{"name", call.name}, {"arguments", call.arguments}}));
    }
    events += event("response.output_item.done",
                    {{"output_index", items_}, {"item", item_of(answer, items_)}});
    ++items_;
  }

  const Question& question_;
  AnswerHead head_;
  int64_t events_ = 0;
  bool announced_ = false;
  size_t items_ = 0;  // that are closed
  bool open_ = false;
  Kind kind_ = Kind::kContent;
  size_t call_ = 0;
  std::string item_id_;
};

}  // namespace

ApiResult<Question> read_response_request(std::string_view body, const ReadingRules& rules) {
  ApiResult<Translated> t = translated(body);
  if (!t) return tl::unexpected(t.error());
  ApiResult<Question> question = read_parsed_chat(t->chat, rules);
  if (!question) return tl::unexpected(at_its_place(question.error(), t->places));
  question->repeated = std::move(t->repeated);
  return question;
}

ApiResult<std::string> count_response_tokens(std::string_view body, const ReadingRules& rules) {
  ReadingRules counting = rules;
  counting.counts = true;
  const ApiResult<Question> question = read_response_request(body, counting);
  if (!question) return tl::unexpected(question.error());
  return json_text(Ordered{{"object", "response.input_tokens"},
                           {"input_tokens", question->prompts.front().ids.size()}});
}

std::unique_ptr<AnswerWriter> response_writer(const ModelInfo&,
                                              const Question& question,
                                              const AnswerHead& head) {
  return std::make_unique<ResponseWriter>(question, head);
}

}  // namespace ferry::serve
