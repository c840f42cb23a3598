#include "serve/messages_api.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "base/ordered_json.h"
#include "serve/chat_request.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::json;
using Ordered = nlohmann::ordered_json;
using Kind = text::AnswerDelta::Kind;

/// Fields of blocks that say how they are cached or cited: here every prompt is found again.
const std::set<std::string> kAboutBlocks = {"cache_control", "citations"};

/// Text, or blocks that are text.
std::string read_texts(JsonFields& of, const char* name, const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    of.refuse(name, "must be text, or a list of blocks of text");
    return "";
  }
  std::string text;
  size_t index = 0;
  for (const Json& item : content) {
    JsonFields block = of.item(name, item, index);
    if (block.text("type") != "text" && !block.problem())
      block.refuse("type", "is not text: this model reads text");
    if (index++ > 0) text += '\n';
    text += block.text("text");
    block.refuse_unknown(kAboutBlocks, "is no field of a block of text");
  }
  return text;
}

/// What calls a tool: here a model does, never a program that it wrote.
void read_caller(JsonFields& block) {
  if (!block.has("caller")) return;
  JsonFields caller = block.object("caller");
  if (caller.text("type") != "direct" && !caller.problem())
    caller.refuse("type", "is not \"direct\": this server runs no programs that call tools");
  caller.refuse_unknown({}, "is no field of a caller");
}

/// One message of Anthropic's is one or several of OpenAI's: results of tools are messages there. `at`: its name.
void read_message(
    JsonFields& m, const Ordered& given, const std::string& at, Ordered& messages, Places& places) {
  const auto next = [&] { return fmt::format("messages[{}]", messages.size()); };
  const std::string role = m.text("role");
  if (role != "user" && role != "assistant" && role != "system" && !m.problem())
    return m.refuse("role", "must be user, assistant or system");
  const Json& content = m.at("content");
  m.refuse_unknown({}, "is no field of a message");
  if (m.problem()) return;
  Ordered out = {{"role", role}, {"content", nullptr}};
  if (content.is_string()) {
    out["content"] = content;
    places.emplace_back(next(), at);
    messages.push_back(std::move(out));
    return;
  }
  std::string text, thinking;
  bool has_text = false, has_thinking = false, has_results = false;
  Ordered calls = Ordered::array();
  const Json& blocks = m.list("content");
  for (size_t i = 0; i < blocks.size() && !m.problem(); ++i) {
    JsonFields block = m.item("content", blocks[i], i);
    const std::string of_block = fmt::format("{}.content[{}]", at, i);
    const std::string type = block.text("type");
    if (type == "text") {
      if (std::exchange(has_text, true)) text += '\n';
      text += block.text("text");
    } else if (type == "thinking" && role == "assistant") {
      has_thinking = true;
      thinking += block.text("thinking");
      block.text("signature", "");
    } else if (type == "tool_use" && role == "assistant") {
      block.members("input");
      read_caller(block);
      const std::string id = block.text("id"), name = block.text("name");
      if (m.problem()) return;
      const std::string call = fmt::format("{}.tool_calls[{}]", next(), calls.size());
      places.emplace_back(call, of_block);
      places.emplace_back(call + ".function.arguments", of_block + ".input");
      calls.push_back(
          {{"id", id},
           {"type", "function"},
           {"function",
            {{"name", name}, {"arguments", json_text(given.at("content").at(i).at("input"))}}}});
    } else if (type == "tool_result" && role == "user") {
      const Json* const result = block.find("content");
      block.boolean("is_error", false);
      places.emplace_back(next(), of_block);
      places.emplace_back(next() + ".role", of_block + ".type");
      places.emplace_back(next() + ".tool_call_id", of_block + ".tool_use_id");
      messages.push_back(
          {{"role", "tool"},
           {"tool_call_id", block.text("tool_use_id")},
           {"content", result == nullptr ? "" : read_texts(block, "content", *result)}});
      has_results = true;
    } else if (!block.problem()) {
      block.refuse("type", "is no block that this server knows in a message with this role");
    }
    block.refuse_unknown(kAboutBlocks, "is no field of this block");
  }
  if (has_text || (!has_results && calls.empty())) out["content"] = text;
  if (has_thinking) out["reasoning_content"] = thinking;
  if (!calls.empty()) out["tool_calls"] = std::move(calls);
  if (!has_text && !out.contains("tool_calls") && has_results) return;
  places.emplace_back(next(), at);
  for (const char* of_blocks : {".tool_calls", ".reasoning_content"})
    places.emplace_back(next() + of_blocks, at + ".content");
  messages.push_back(std::move(out));
}

/// What says of a tool who may call it, and when and how it is shown: as this server does it anyway, or it is refused.
void read_tool_terms(JsonFields& tool) {
  // Arguments come as they are made.
  tool.boolean("eager_input_streaming", false);
  if (tool.boolean("defer_loading", false))
    tool.refuse("defer_loading", "is not supported: this server shows all tools from the start");
  if (tool.has("allowed_callers"))
    for (const std::string& caller : tool.texts("allowed_callers"))
      if (caller != "direct")
        tool.refuse("allowed_callers",
                    "must be [\"direct\"]: this server runs no programs that call tools");
  if (tool.has("input_examples") && !tool.list("input_examples").empty())
    tool.refuse("input_examples",
                "is not supported: chat templates show a model no examples; write them into the "
                "description");
}

void read_tools(JsonFields& fields, const Ordered& request, Ordered& chat, Places& places) {
  if (fields.has("tools")) {
    Ordered tools = Ordered::array();
    const Json& list = fields.list("tools");
    for (size_t i = 0; i < list.size() && !fields.problem(); ++i) {
      JsonFields tool = fields.item("tools", list[i], i);
      if (tool.text("type", "custom") != "custom")
        tool.refuse("type",
                    "is not \"custom\"; this server runs no tools of its own: leave it out");
      Ordered function = {{"name", tool.text("name")},
                          {"description", tool.text("description", "")}};
      tool.members("input_schema");
      if (fields.problem()) return;
      function["parameters"] = request.at("tools").at(i).at("input_schema");
      if (tool.boolean("strict", false)) function["strict"] = true;
      read_tool_terms(tool);
      tool.refuse_unknown(kAboutBlocks, "is no field of a tool");
      tools.push_back({{"type", "function"}, {"function", std::move(function)}});
      const std::string at = fmt::format("tools[{}]", i);
      places.emplace_back(at + ".function", at);
      places.emplace_back(at + ".function.parameters", at + ".input_schema");
    }
    if (!tools.empty()) chat["tools"] = std::move(tools);
  }
  if (!fields.has("tool_choice")) return;
  JsonFields choice = fields.object("tool_choice");
  const std::string type = choice.text("type");
  if (type == "any") {
    chat["tool_choice"] = "required";
  } else if (type == "tool") {
    chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", choice.text("name")}}}};
  } else if (type == "auto" || type == "none") {
    chat["tool_choice"] = type;
  } else if (!choice.problem()) {
    choice.refuse("type", "must be auto, any, tool or none");
  }
  if (choice.boolean("disable_parallel_tool_use", false)) chat["parallel_tool_calls"] = false;
  choice.refuse_unknown({}, "is no field of a choice of tools");
}

void read_output(JsonFields& fields, const Ordered& request, Ordered& chat) {
  if (!fields.has("output_config")) return;
  JsonFields output = fields.object("output_config");
  if (output.has("effort")) chat["reasoning_effort"] = output.text("effort");
  if (output.has("format")) {
    JsonFields format = output.object("format");
    if (format.text("type") != "json_schema" && !format.problem())
      format.refuse("type", "must be json_schema");
    format.members("schema");
    format.refuse_unknown({}, "is no field of a format");
    if (fields.problem()) return;
    chat["response_format"] = {
        {"type", "json_schema"},
        {"json_schema", {{"schema", request.at("output_config").at("format").at("schema")}}}};
  }
  output.refuse_unknown({}, "is not supported by this server");
}

/// What a server may take out of a long conversation: here nothing is, and who asks for that is served.
void read_context_management(JsonFields& fields) {
  if (!fields.has("context_management")) return;
  JsonFields management = fields.object("context_management");
  if (management.has("edits")) {
    size_t index = 0;
    for (const Json& item : management.list("edits")) {
      JsonFields edit = management.item("edits", item, index++);
      if (edit.text("type") != "clear_thinking_20251015" && !edit.problem())
        edit.refuse("type", "is not supported: this server takes nothing out of a conversation");
      if (!edit.has("keep") && !edit.problem())
        edit.refuse("keep", "must be \"all\": this server takes no thoughts out of a conversation");
      edit.only("keep", "all");
      edit.refuse_unknown({}, "is no field of this edit");
    }
  }
  management.refuse_unknown({}, "is not supported by this server");
}

void read_thinking(JsonFields& fields, Ordered& chat) {
  if (fields.has("thinking")) {
    JsonFields thinking = fields.object("thinking");
    const std::string type = thinking.text("type");
    if (type == "disabled") {
      chat["thinking"] = {{"type", "disabled"}};
    } else if (type == "enabled" || type == "adaptive") {
      chat["thinking"] = {{"type", type}};
      // How long it may be is the model's affair: max_tokens bounds both.
      if (thinking.has("budget_tokens")) thinking.integer("budget_tokens", 1, INT32_MAX);
    } else if (!thinking.problem()) {
      thinking.refuse("type", "must be enabled, adaptive or disabled");
    }
    thinking.refuse_unknown({"display"}, "is no field of thinking");
  }
}

struct Translated {
  Ordered chat;   // the request as /v1/chat/completions would have it
  Places places;  // of its parts
};

ApiResult<Translated> translated(std::string_view body, bool counts_only) {
  const ApiResult<Ordered> ordered = parse_ordered_request(body);
  if (!ordered) return tl::unexpected(ordered.error());
  const Ordered& request = *ordered;
  const Json json = request;
  JsonProblem problem{.code = Code::kInvalidInput};
  JsonFields fields(json, kWhere, problem);
  Ordered chat = {{"messages", Ordered::array()}};
  if (const Json* const system = fields.find("system"))
    chat["messages"].push_back(
        {{"role", "system"}, {"content", read_texts(fields, "system", *system)}});
  Places places = {{"reasoning_effort", "output_config.effort"},
                   {"response_format.json_schema", "output_config.format"},
                   {"response_format", "output_config.format"},
                   {"tool_choice.function", "tool_choice"},
                   {"stop", "stop_sequences"}};
  if (!chat["messages"].empty())
    for (const char* name : {"messages[0]", "messages[0].content"})
      places.emplace_back(name, "system");
  const Json& list = fields.list("messages");
  for (size_t i = 0; i < list.size() && !problem; ++i) {
    JsonFields message = fields.item("messages", list[i], i);
    const std::string at = fmt::format("messages[{}]", i);
    read_message(message, request.at("messages").at(i), at, chat["messages"], places);
  }
  if (!problem && !chat["messages"].empty()) {
    Ordered& last = chat["messages"].back();
    if (last["role"] == "assistant" && !last.contains("tool_calls")) last["prefix"] = true;
  }
  read_tools(fields, request, chat, places);
  read_thinking(fields, chat);
  read_output(fields, request, chat);
  read_context_management(fields);
  if (counts_only)
    chat["max_tokens"] = 1;
  else
    chat["max_tokens"] = fields.integer("max_tokens", 1, INT32_MAX);
  if (fields.has("model")) chat["model"] = fields.text("model");
  if (fields.has("stop_sequences")) chat["stop"] = fields.texts("stop_sequences");
  for (const char* name : {"temperature", "top_p", "top_k", "stream", "seed", "cache_salt"})
    if (const Json* const value = fields.find(name)) chat[name] = *value;
  fields.refuse_unknown({"metadata", "service_tier", "cache_control"},
                        "is not supported by this server");
  if (problem) return tl::unexpected(api_error(problem, kWhere));
  return Translated{.chat = std::move(chat), .places = std::move(places)};
}

ApiResult<Question> read(const ApiResult<Translated>& request, const ReadingRules& rules) {
  if (!request) return tl::unexpected(request.error());
  ApiResult<Question> question = read_parsed_chat(request->chat, rules);
  if (!question) return tl::unexpected(at_its_place(question.error(), request->places));
  return question;
}

/// Answers as messages of blocks.
class MessageWriter : public AnswerWriter {
 public:
  explicit MessageWriter(AnswerHead head) : head_(std::move(head)) {}

  ApiStyle style() const override { return ApiStyle::kAnthropic; }

  std::string document(const std::vector<Answer>& answers, const AnswerUsage& usage) override {
    const Answer& a = answers.front();
    Ordered content = Ordered::array();
    if (a.parts.empty()) content.push_back({{"type", "text"}, {"text", ""}});
    for (const AnswerPart& part : a.parts) {
      if (part.kind == Kind::kReasoning)
        content.push_back({{"type", "thinking"}, {"thinking", part.text}, {"signature", ""}});
      if (part.kind == Kind::kContent) content.push_back({{"type", "text"}, {"text", part.text}});
      if (part.kind != Kind::kCall) continue;
      const ToolCall& c = a.calls[part.call];
      Ordered input;
      if (auto read = parse_ordered_json(c.arguments, kWhere)) input = *std::move(read);
      // What is no JSON, or too deep, must not be lost: the client sees what the model wrote.
      if (!input.is_object()) input = {{"arguments", c.arguments}};
      content.push_back(
          {{"type", "tool_use"}, {"id", c.id}, {"name", c.name}, {"input", std::move(input)}});
    }
    Ordered message = message_json(std::move(content), usage);
    message["stop_reason"] = reason_of(a);
    message["stop_sequence"] = stop_of(a);
    return json_text(message);
  }

  /// Clients pass it over wherever it stands.
  std::string keep_alive() override { return event("ping", Ordered::object()); }

  std::string begin(const std::vector<Answer>&, const AnswerUsage& usage) override {
    return event("message_start", {{"message", message_json(Ordered::array(), usage)}});
  }

  std::string more(size_t,
                   const Answer& answer,
                   const AnswerNews& news,
                   const AnswerUsage& usage) override {
    std::string events;
    for (const text::AnswerDelta& d : news.deltas) {
      switch (d.kind) {
        case Kind::kReasoning:
          open(Kind::kReasoning,
               {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}},
               events);
          delta({{"type", "thinking_delta"}, {"thinking", d.text}}, events);
          break;
        case Kind::kContent:
          open(Kind::kContent, {{"type", "text"}, {"text", ""}}, events);
          delta({{"type", "text_delta"}, {"text", d.text}}, events);
          break;
        case Kind::kCall:
          close(events);
          open(Kind::kCall,
               {{"type", "tool_use"},
                {"id", answer.calls[static_cast<size_t>(d.call)].id},
                {"name", d.text},
                {"input", Ordered::object()}},
               events);
          break;
        case Kind::kArguments:
          delta({{"type", "input_json_delta"}, {"partial_json", d.text}}, events);
          break;
        case Kind::kCallEnd: close(events); break;
      }
    }
    if (!answer.end) return events;
    if (answer.parts.empty()) open(Kind::kContent, {{"type", "text"}, {"text", ""}}, events);
    close(events);
    events +=
        event("message_delta",
              {{"delta", {{"stop_reason", reason_of(answer)}, {"stop_sequence", stop_of(answer)}}},
               {"usage", usage_json(usage)}});
    return events;
  }

  std::string end(const std::vector<Answer>&, const AnswerUsage&) override {
    return event("message_stop", Ordered::object());
  }

  std::string failure(const ApiError& error) override {
    return "event: error\ndata: " + error_json(error, ApiStyle::kAnthropic) + "\n\n";
  }

 private:
  static std::string event(const char* type, const Ordered& fields) {
    Ordered j = {{"type", type}};
    j.update(fields);
    return fmt::format("event: {}\ndata: {}\n\n", type, json_text(j));
  }
  static Ordered usage_json(const AnswerUsage& u) {
    return {{"input_tokens", u.prompt - u.cached},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", u.cached},
            {"output_tokens", u.completion}};
  }
  static const char* reason_of(const Answer& a) {
    switch (*a.end) {
      case AnswerEnd::kLength: return "max_tokens";
      case AnswerEnd::kToolCalls: return "tool_use";
      case AnswerEnd::kStop: break;
    }
    return a.stopped_by.empty() ? "end_turn" : "stop_sequence";
  }
  static Ordered stop_of(const Answer& a) {
    return a.stopped_by.empty() ? Ordered(nullptr) : Ordered(a.stopped_by);
  }

  Ordered message_json(Ordered content, const AnswerUsage& usage) const {
    return {{"id", "msg_" + head_.id},
            {"type", "message"},
            {"role", "assistant"},
            {"model", head_.model},
            {"content", std::move(content)},
            {"stop_reason", nullptr},
            {"stop_sequence", nullptr},
            {"usage", usage_json(usage)}};
  }

  /// A block of this kind, unless one is open.
  void open(Kind kind, const Ordered& block, std::string& events) {
    if (open_ && kind_ == kind) return;
    close(events);
    open_ = true;
    kind_ = kind;
    events += event("content_block_start", {{"index", blocks_}, {"content_block", block}});
  }
  void delta(const Ordered& what, std::string& events) const {
    events += event("content_block_delta", {{"index", blocks_}, {"delta", what}});
  }
  void close(std::string& events) {
    if (!std::exchange(open_, false)) return;
    events += event("content_block_stop", {{"index", blocks_}});
    ++blocks_;
  }

  AnswerHead head_;
  bool open_ = false;
  Kind kind_ = Kind::kContent;
  int64_t blocks_ = 0;  // that are closed
};

}  // namespace

ApiResult<Question> read_message_request(std::string_view body, const ReadingRules& rules) {
  return read(translated(body, false), rules);
}

ApiResult<std::string> count_tokens_request(std::string_view body, const ReadingRules& rules) {
  ReadingRules counting = rules;
  counting.counts = true;
  const ApiResult<Question> question = read(translated(body, true), counting);
  if (!question) return tl::unexpected(question.error());
  return json_text(Ordered{{"input_tokens", question->prompts.front().ids.size()}});
}

std::unique_ptr<AnswerWriter> message_writer(const ModelInfo&,
                                             const Question&,
                                             const AnswerHead& head) {
  return std::make_unique<MessageWriter>(head);
}

}  // namespace ferry::serve
