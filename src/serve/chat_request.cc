#include "serve/chat_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/json.h"
#include "base/ordered_json.h"
#include "checkpoint/model_chat.h"
#include "serve/answer_form.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::json;
using Ordered = nlohmann::ordered_json;  // templates print objects in the order of their fields

constexpr size_t kToolsMax = 128;
constexpr size_t kToolNameBytesMax = 128;
/// Messages and calls of a conversation that is soon written: each is some hundred steps of a template, some ten times.
constexpr size_t kShortTurns = 512;

/// What a template is given.
struct Conversation {
  Ordered messages = Ordered::array();
  Ordered tools = nullptr;
  Ordered values = Ordered::object();  // chat_template_kwargs
  std::optional<bool> thinking;        // nothing: as the template likes
  std::optional<Ordered> begun;        // the message that the answer goes on with
  AskedForm form;
};

/// Text, or parts that are text, joined by line ends as other servers join them. That an assistant of OpenAI's would
/// not answer is what it said.
std::string read_content(JsonFields& message, const Json& content, bool assistant) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    message.refuse("content", "must be text, or a list of parts of text");
    return "";
  }
  std::string text;
  size_t index = 0;
  for (const Json& item : content) {
    JsonFields part = message.item("content", item, index);
    const std::string type = part.text("type");
    const bool refusal = assistant && type == "refusal";
    if (type != "text" && !refusal && !part.problem())
      part.refuse("type", "is not text: this model reads text");
    if (index++ > 0) text += '\n';
    text += part.text(refusal ? "refusal" : "text");
    part.refuse_unknown({"cache_control"}, "is no field of a part of text");
  }
  return text;
}

/// The calls that the assistant made earlier. Their arguments are JSON in a text; most templates print
/// an object.
Ordered read_calls(JsonFields& message, const Ordered& given) {
  Ordered calls = Ordered::array();
  size_t index = 0;
  for (const Json& item : message.list("tool_calls")) {
    JsonFields call = message.item("tool_calls", item, index);
    call.only("type", "function");
    JsonFields function = call.object("function");
    function.text("name");
    function.text("arguments");
    function.refuse_unknown({}, "is no field of a call");
    call.refuse_unknown({"id", "index"}, "is no field of a call");
    if (message.problem()) return calls;
    Ordered copy = given.at("tool_calls").at(index++);
    copy["type"] = "function";
    calls.push_back(std::move(copy));
  }
  return calls;
}

Ordered read_message(JsonFields& m, const Ordered& given, bool& prefix) {
  std::string role = m.text("role");
  if (role == "developer") role = "system";
  if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
    m.refuse("role", "must be system, developer, user, assistant or tool");
    return {};
  }
  Ordered out = {{"role", role}};
  const bool assistant = role == "assistant";
  const bool calls = assistant && m.has("tool_calls") && !m.list("tool_calls").empty();
  const Json* const content = m.find("content");
  if (content != nullptr) {
    out["content"] = read_content(m, *content, assistant);
    // Clients write no words beside a call as "", too; DeepSeek's templates show calls where there is no content.
    if (calls && out["content"] == "") out["content"] = nullptr;
  } else if (assistant && m.has("refusal")) {
    out["content"] = m.text("refusal");
  } else if (assistant && (calls || m.has("reasoning_content"))) {
    out["content"] = nullptr;
  } else {
    m.at("content");
  }
  if (m.has("name")) out["name"] = m.text("name");
  if (role == "tool" && m.has("tool_call_id")) out["tool_call_id"] = m.text("tool_call_id");
  if (assistant) {
    for (const char* name : {"reasoning_content", "reasoning"})
      if (m.has(name)) out["reasoning_content"] = m.text(name);
    if (calls) out["tool_calls"] = read_calls(m, given);
    prefix = m.boolean("prefix", false);
    if (content != nullptr) m.only("refusal", "");
    m.only("annotations", Json::array());
  }
  m.refuse_unknown({}, "is no field of a message with this role");
  return out;
}

void read_messages(JsonFields& fields, const Ordered& request, Conversation& c) {
  const Json& list = fields.list("messages");
  if (list.empty() && !fields.problem()) fields.refuse("messages", "is empty");
  bool goes_on = fields.boolean("continue_final_message", false);
  for (size_t i = 0; i < list.size() && !fields.problem(); ++i) {
    JsonFields message = fields.item("messages", list[i], i);
    bool prefix = false;
    c.messages.push_back(read_message(message, request.at("messages").at(i), prefix));
    if (prefix && i + 1 < list.size()) message.refuse("prefix", "is for the last message");
    goes_on |= prefix;
  }
  // Whoever goes on with a message wants no new one to be begun.
  const bool begins = fields.boolean("add_generation_prompt", !goes_on);
  if (begins == goes_on)
    fields.refuse("add_generation_prompt",
                  "must be true, or false with \"continue_final_message\"");
  if (!goes_on || fields.problem()) return;
  if (c.messages.back()["role"] != "assistant" || c.messages.back().contains("tool_calls") ||
      c.messages.size() < 2)
    return fields.refuse("messages", "must end with text of the assistant's to go on with");
  c.begun = std::move(c.messages.back());
  c.messages.erase(c.messages.size() - 1);
}

void read_tools(JsonFields& fields, const Ordered& request, Conversation& c, Question& q) {
  q.one_call = !fields.boolean("parallel_tool_calls", true);
  const Json none = Json::array();
  const Json& list = fields.has("tools") ? fields.list("tools") : none;
  std::vector<grammar::Tool> tools;
  std::vector<bool> strict;
  if (list.size() > kToolsMax)
    return fields.refuse("tools", fmt::format("has {} tools; at most {}", list.size(), kToolsMax));
  for (size_t i = 0; i < list.size() && !fields.problem(); ++i) {
    JsonFields tool = fields.item("tools", list[i], i);
    if (tool.text("type", "function") != "function" && !tool.problem())
      tool.refuse("type",
                  "is not \"function\"; this server runs no tools of its own: leave it out");
    JsonFields function = tool.object("function");
    const std::string name = function.text("name");
    if ((name.empty() || name.size() > kToolNameBytesMax) && !tool.problem())
      function.refuse("name", fmt::format("must have 1 to {} bytes", kToolNameBytesMax));
    function.text("description", "");
    grammar::Tool held{.name = name};
    if (function.has("parameters")) {
      function.members("parameters");
      if (fields.problem()) return;
      held.parameters = json_text(request.at("tools").at(i).at("function").at("parameters"));
    }
    strict.push_back(function.boolean("strict", false));
    tools.push_back(std::move(held));
    function.refuse_unknown({}, "is no field of a function");
    tool.refuse_unknown({"cache_control"}, "is no field of a tool");
    q.tools.push_back(name);
  }
  // Tools that must not be called are not shown.
  if (read_tool_choice(fields, std::move(tools), std::move(strict), !q.one_call, c.form))
    c.tools = request.at("tools");
  else
    q.tools.clear();
}

void read_thinking(JsonFields& fields, const Ordered& request, Conversation& c) {
  if (fields.has("chat_template_kwargs")) {
    const Json& values = fields.members("chat_template_kwargs");
    for (const char* name : {"messages", "tools", "add_generation_prompt"})
      if (values.contains(name))
        fields.refuse("chat_template_kwargs", "must not hold what the request itself says");
    if (fields.problem()) return;
    c.values = request.at("chat_template_kwargs");
    for (const char* name : {"enable_thinking", "thinking"})
      if (const auto it = values.find(name); it != values.end() && it->is_boolean())
        c.thinking = it->get<bool>();
  }
  if (fields.has("thinking")) {
    JsonFields thinking = fields.object("thinking");
    const std::string type = thinking.text("type");
    if (type != "enabled" && type != "adaptive" && type != "disabled" && !thinking.problem())
      thinking.refuse("type", "must be enabled, adaptive or disabled");
    thinking.refuse_unknown({}, "is no field of thinking");
    c.thinking = type != "disabled";
  }
  if (fields.has("reasoning_effort")) {
    const std::string effort = fields.text("reasoning_effort");
    if (effort != "none" && effort != "minimal" && effort != "low" && effort != "medium" &&
        effort != "high" && effort != "xhigh" && effort != "max" && !fields.problem())
      fields.refuse("reasoning_effort", "must be none, minimal, low, medium, high, xhigh or max");
    if (!c.thinking) c.thinking = effort != "none";
    if (effort != "none" && !c.values.contains("reasoning_effort"))
      c.values["reasoning_effort"] = effort;
  }
  if (!c.thinking) return;
  // Families of models call it differently.
  for (const char* name : {"enable_thinking", "thinking"})
    if (!c.values.contains(name)) c.values[name] = *c.thinking;
}

/// Whether a template may read a variable: one whose source has no such name cannot.
bool has_name(std::string_view source, std::string_view name) {
  const auto continues = [&](size_t at) {
    if (at >= source.size()) return false;
    const char c = source[at], small = static_cast<char>(c | 0x20);
    return c == '_' || (c >= '0' && c <= '9') || (small >= 'a' && small <= 'z');
  };
  for (size_t at = 0; (at = source.find(name, at)) != std::string_view::npos; ++at)
    if ((at == 0 || !continues(at - 1)) && !continues(at + name.size())) return true;
  return false;
}

/// What is asked of a template that knows nothing of it would be without any effect. To want no thoughts where there
/// are none is all right, and to leave it to the model.
void check_known_to_template(JsonFields& fields, const ModelInfo& model) {
  if (fields.problem() || (!fields.has("chat_template_kwargs") && !fields.has("thinking") &&
                           !fields.has("reasoning_effort")))
    return;
  const Result<std::string> source = chat_templates_of(model.texts, model.directory);
  if (!source) return;  // which is said where it is needed
  const bool thinks =
      model.syntax.thinks || has_name(*source, "enable_thinking") || has_name(*source, "thinking");
  constexpr const char* kNoThoughts = "is not for this model: its chat template knows no thoughts";
  if (fields.has("chat_template_kwargs")) {
    JsonFields values = fields.object("chat_template_kwargs");
    for (const auto& [name, value] : fields.members("chat_template_kwargs").items()) {
      const bool about_thoughts = name == "enable_thinking" || name == "thinking";
      if (about_thoughts ? thinks || value == false : has_name(*source, name)) continue;
      values.refuse(
          name.c_str(),
          about_thoughts ? kNoThoughts : "is a name that this model's chat template does not have");
      return;
    }
  }
  if (thinks || fields.problem()) return;
  if (fields.has("thinking") && fields.object("thinking").text("type") == "enabled")
    fields.refuse("thinking", kNoThoughts);
  if (fields.has("reasoning_effort") && fields.text("reasoning_effort") != "none" &&
      !has_name(*source, "reasoning_effort"))
    fields.refuse("reasoning_effort", kNoThoughts);
}

/// The conversation with arguments of calls as objects; false: there are none to change. Errors: kInvalidInput, naming
/// the message: a number that a template would not write as it is.
Result<bool> with_objects(Ordered& messages) {
  bool changed = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    Ordered& message = messages[i];
    if (!message.contains("tool_calls")) continue;
    size_t index = 0;
    for (Ordered& call : message["tool_calls"]) {
      const std::string at =
          fmt::format("messages[{}].tool_calls[{}].function.arguments", i, index++);
      Ordered& arguments = call["function"]["arguments"];
      // No arguments are written as nothing by some models and clients.
      const std::string given = arguments.get<std::string>();
      const bool none = given.find_first_not_of(" \t\r\n") == std::string::npos;
      const std::string text = none ? "{}" : given;
      Result<Ordered> object = parse_ordered_json(text, kWhere);
      if (!object && !parse_json(text, kWhere)) return false;
      TRY(check_whole_numbers(text, at));
      if (!object) return false;
      if (object->is_null()) *object = Ordered::object();
      if (!object->is_object()) return false;
      arguments = *std::move(object);
      changed = true;
    }
  }
  return changed;
}

/// One way to write a conversation.
struct Written {
  Ordered conversation;  // as a template is given it
  std::string text;
};

Result<Written> written(const ModelInfo& model, const Conversation& c, const Ordered& messages) {
  Ordered whole = {{"messages", messages}, {"chat_template_kwargs", c.values}};
  if (c.tools.is_array()) whole["tools"] = c.tools;
  Written w{.conversation = std::move(whole), .text = {}};
  TRY_ASSIGN(w.text, chat_text(model.texts, w.conversation, kWhere, "this model"));
  return w;
}

/// The conversation with "" where a message has no content; false: each has some.
bool with_contents(Ordered& messages) {
  bool changed = false;
  for (Ordered& message : messages)
    if (message["content"].is_null()) {
      message["content"] = "";
      changed = true;
    }
  return changed;
}

/// With "" for content that is absent, where the template needs some.
Result<Written> with_content_if_needed(const ModelInfo& model,
                                       const Conversation& c,
                                       const Ordered& messages) {
  Ordered filled = messages;
  if (!with_contents(filled)) return written(model, c, messages);
  Result<Written> with_null = written(model, c, messages), with_text = written(model, c, filled);
  const bool needed = needs_content(with_null.map(&Written::text), with_text.map(&Written::text));
  return needed ? std::move(with_text) : std::move(with_null);
}

/// Most templates print arguments as JSON, some add them as text to text: these refuse an object.
Result<Written> written(const ModelInfo& model, const Conversation& c) {
  Ordered objects = c.messages;
  const Result<bool> changed = with_objects(objects);
  if (changed && *changed)
    if (Result<Written> w = with_content_if_needed(model, c, objects)) return w;
  Result<Written> text = with_content_if_needed(model, c, c.messages);
  if (changed || !text) return text;
  // A number that would lose digits loses none where arguments are added as text, which is where no object is taken.
  Ordered empty = c.messages;
  for (Ordered& message : empty)
    if (message.contains("tool_calls"))
      for (Ordered& call : message["tool_calls"]) call["function"]["arguments"] = Ordered::object();
  if (with_content_if_needed(model, c, empty)) return tl::unexpected(changed.error());
  return text;
}

tl::unexpected<ApiError> wrong_messages(const Status& status,
                                        const std::string& place = "messages") {
  ApiError error = api_error(status);
  error.param = place;
  return tl::unexpected(error);
}

/// The conversation with each message changed; false: none was.
template <typename F>
bool change_messages(Conversation& c, const F& change) {
  bool changed = false;
  for (Ordered& m : c.messages) changed |= change(m);
  return changed;
}

/// Whether a template shows what a change takes away. What it cannot do without is shown.
template <typename F>
bool is_shown(const ModelInfo& model,
              const Conversation& c,
              const std::string& text,
              const F& change) {
  Conversation without = c;
  if (!change_messages(without, change)) return true;
  const Result<Written> same = written(model, without);
  return !same || same->text != text;
}

ApiError not_shown(const Conversation& c,
                   const char* field,
                   std::string_view what,
                   const auto& has) {
  const auto it = std::find_if(c.messages.begin(), c.messages.end(), has);
  const std::string place = fmt::format("messages[{}].{}", it - c.messages.begin(), field);
  return {.message = fmt::format("{}: {}", place, what), .param = place};
}

/// Refuses what a model would never hear of, though its client thinks so: templates leave out what they do not know.
/// (Earlier thoughts they leave out on purpose.) Each costs one more writing, and only where it occurs.
ApiResult<void> check_shown(const ModelInfo& model,
                            const Conversation& c,
                            const std::string& text) {
  const auto calls = [](const Ordered& m) { return m.contains("tool_calls"); };
  if (!is_shown(model, c, text, [](Ordered& m) { return m.erase("tool_calls") > 0; }))
    return tl::unexpected(
        not_shown(c,
                  "tool_calls",
                  "this model's chat template shows a model none of these calls (some show those "
                  "of a message whose content is null)",
                  calls));
  const auto result = [](const Ordered& m) { return m["role"] == "tool"; };
  const auto another = [&](Ordered& m) {
    if (!result(m)) return false;
    m["content"] = "x" + m["content"].get<std::string>() + "x";
    return true;
  };
  if (!is_shown(model, c, text, another))
    return tl::unexpected(not_shown(
        c, "role", "this model's chat template shows a model no results of tools", result));
  // A tool's name is its call's.
  const auto named = [&](const Ordered& m) { return m.contains("name") && !result(m); };
  const auto unnamed = [&](Ordered& m) { return named(m) && m.erase("name") > 0; };
  if (!is_shown(model, c, text, unnamed))
    return tl::unexpected(
        not_shown(c,
                  "name",
                  "this model's chat template shows a model no names: write into the content who "
                  "speaks, and leave the name out, or serve the model with a template that shows "
                  "names",
                  named));
  if (c.begun && c.begun->contains("name"))
    return tl::unexpected(
        ApiError{.message = fmt::format("messages[{}].name: a message to go on with has no name; "
                                        "leave it out",
                                        c.messages.size()),
                 .param = fmt::format("messages[{}].name", c.messages.size())});
  return {};
}

/// All ways to write it are compared as texts; only the one that is chosen becomes tokens, and only if it may fit.
ApiResult<Prompt> prompt_of(const ReadingRules& rules, const Conversation& asked) {
  const ModelInfo& model = rules.model;
  const auto begun = [&](const char* name) -> std::string {
    if (!asked.begun) return "";
    const auto it = asked.begun->find(name);
    return it != asked.begun->end() && it->is_string() ? it->get<std::string>() : "";
  };
  const std::string thought = begun("reasoning_content"), content = begun("content");
  const auto no_thought = [&](const char* why) {
    const std::string where = fmt::format("messages[{}].reasoning_content", asked.messages.size());
    return tl::unexpected(ApiError{.message = fmt::format("{}: {}", where, why), .param = where});
  };
  for (const char* name : {"reasoning_content", "content"}) {
    const std::string at = fmt::format("messages[{}].{}", asked.messages.size(), name);
    const Result<void> plain =
        check_chat_text(model.texts, begun(name), fmt::format("{}: {}", kWhere, at));
    if (!plain) return wrong_messages(plain.error(), at);
  }
  if (!thought.empty() && !model.syntax.thinks)
    return no_thought("this model does not think: there is no thought of its to go on with");
  // A template that is told not to think closes the thought that is gone on with before it begins.
  Conversation c = asked;
  if (!thought.empty())
    for (const char* name : {"enable_thinking", "thinking"}) c.values[name] = true;
  if (const auto exact = check_numbers(c.tools, "tools"); !exact)
    return tl::unexpected(ApiError{.message = exact.error().message, .param = "tools"});
  Result<Written> chat = written(model, c);
  if (!chat) {
    const std::string& why = chat.error().message;
    return wrong_messages(
        chat.error(), why.starts_with("messages[") ? why.substr(0, why.find(": ")) : "messages");
  }
  if (const auto fits = check_prompt_bytes(chat->text.size(), rules, "messages"); !fits)
    return tl::unexpected(fits.error());
  // Where there is no answer but calls, their form says what there is to call.
  const bool need_not = !c.form.form || c.form.form->kind != grammar::AnswerForm::Kind::kCalls;
  if (need_not && c.tools.is_array() && !c.tools.empty()) {
    Conversation without = c;
    without.tools = nullptr;
    if (const Result<Written> same = written(model, without); same && same->text == chat->text)
      return tl::unexpected(ApiError{.message = "tools: this model's chat template shows a model "
                                                "no tools: it would never know of them",
                                     .param = "tools"});
  }
  if (const auto shown = check_shown(model, c, chat->text); !shown)
    return tl::unexpected(shown.error());
  std::string place;
  if (const Result<void> plain = check_chat(model.texts, chat->conversation, kWhere, &place);
      !plain)
    return wrong_messages(plain.error(), place);
  bool thinking = text::begins_thinking(model.syntax, chat->text);
  std::string more;
  if (!thought.empty()) {
    if (!thinking && text::ends_thinking(chat->text))
      return no_thought(
          "this model's chat template opens its answers behind a thought: none can be gone on "
          "with");
    if (!thinking) more = "<think>\n";
    more += thought;
    thinking = true;
  }
  if (thinking && (c.thinking == false || !content.empty())) {
    more += "\n</think>\n\n";
    thinking = false;
  }
  more += content;
  Prompt prompt{.ids = {}, .thinking = thinking, .thought_begun = thinking && !thought.empty()};
  model.texts.tokenizer->encode(chat->text + more, text::Tokenizer::Specials::kParse, prompt.ids);
  return prompt;
}

bool takes_long_to_write(const Conversation& c) {
  size_t turns = c.messages.size();
  for (const Ordered& message : c.messages)
    if (message.contains("tool_calls")) turns += message["tool_calls"].size();
  return turns > kShortTurns;
}

}  // namespace

ApiResult<Question> read_chat(std::string_view body, const ReadingRules& rules) {
  const ApiResult<Ordered> request = parse_ordered_request(body);
  if (!request) return tl::unexpected(request.error());
  return read_parsed_chat(*request, rules);
}

ApiResult<Question> read_parsed_chat(const Ordered& request, const ReadingRules& rules) {
  const Json json = request;
  JsonProblem problem{.code = Code::kInvalidInput};
  JsonFields fields(json, kWhere, problem);
  Question q{.chat = true};
  Conversation c;
  read_shared_fields(fields, rules, q);
  read_messages(fields, request, c);
  read_tools(fields, request, c, q);
  read_thinking(fields, request, c);
  check_known_to_template(fields, rules.model);
  read_response_format(fields, request, c.form);
  if (c.form.form && c.begun)
    fields.refuse("messages", "must not end with text to go on with where the answer has a form");
  if (c.form.form && fields.has("stop_token_ids"))
    fields.refuse("stop_token_ids", "is not for an answer that has a form, which may need them");
  if (c.form.form && q.options.end_tokens.empty())
    fields.refuse("ignore_eos", "leaves an answer that has a form no end");
  const int64_t top =
      fields.has("top_logprobs") ? fields.integer("top_logprobs", 0, kTopLogProbsMax) : 0;
  if (fields.boolean("logprobs", false))
    q.options.top_log_probs = top;
  else if (top > 0)
    fields.refuse("top_logprobs", "needs \"logprobs\": true");
  read_prompt_log_probs(fields, q);
  fields.only("echo", false);
  fields.only("add_special_tokens", false);  // templates write them
  fields.only("modalities", Json::array({"text"}));
  fields.only("verbosity", "medium");
  std::optional<int64_t> tokens_max;
  for (const char* name : {"max_tokens", "max_completion_tokens"})
    if (fields.has(name)) {
      const int64_t most = fields.integer(name, 1, INT32_MAX);
      if (tokens_max && *tokens_max != most) fields.refuse(name, "is not what max_tokens says");
      tokens_max = most;
    }
  if (problem) return tl::unexpected(api_error(problem, kWhere));
  if (rules.in_short && takes_long_to_write(c)) return tl::unexpected(ApiError{.takes_long = true});
  ApiResult<Prompt> prompt = prompt_of(rules, c);
  if (!prompt) return tl::unexpected(prompt.error());
  if (c.form.form) {
    using Thought = grammar::AnswerForm::Thought;
    Thought thought = Thought::kNone;
    if (prompt->thinking)
      thought = Thought::kBegun;
    else if (rules.model.syntax.thinks && c.thinking != false)
      thought = Thought::kMay;
    q.only_calls = c.form.form->kind == grammar::AnswerForm::Kind::kCalls;
    auto constraint =
        constraint_of(rules.model, rules.forms, std::move(c.form), thought, rules.in_short);
    if (!constraint) return tl::unexpected(constraint.error());
    q.options.constraint = *std::move(constraint);
  }
  q.prompts.push_back(*std::move(prompt));
  return checked(fields, rules, tokens_max, "messages", std::move(q));
}

}  // namespace ferry::serve
