#include "checkpoint/model_chat.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/ordered_json.h"
#include "checkpoint/chat_padding.h"
#include "checkpoint/chat_renderer.h"
#include "text/chat_template.h"
#include "text/utf8.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;  // a template sees fields in the order in which they came

struct Source {
  std::string path, text;  // what messages call it
};

/// Before the name of a template's file, among texts' files, which no file of a model has: it was given.
constexpr const char* kGivenTemplate = "--chat-template ";

std::string without_default(const std::string& path,
                            const std::map<std::string, std::string>& named) {
  std::vector<std::string> names;
  for (const auto& [name, text] : named) names.push_back(printable(name));
  return fmt::format(
      "{}: its chat templates are named {}, and none 'default', which is the one for "
      "conversations; "
      "name one so",
      path,
      fmt::join(names, ", "));
}

/// A file of a directory; of a GGUF file, which has none, what it stands for.
std::string named_in(const std::string& directory, const std::string& name) {
  const bool file = path_exists(directory) && !is_folder(directory);
  return file ? directory + ": tokenizer.chat_template" : join_path(directory, name);
}

Result<Source> any_template(const ModelTexts& texts, bool tools, const std::string& directory) {
  std::string nameless;
  if (const auto given = texts.files.lower_bound(kGivenTemplate);
      given != texts.files.end() && given->first.starts_with(kGivenTemplate))
    return Source{given->first, given->second};
  for (const std::string name : {"additional_chat_templates/tool_use.jinja",
                                 "chat_template.jinja",
                                 "chat_template.json",
                                 kTokenizerConfigName}) {
    if (name.starts_with("additional") && !tools) continue;
    if (const auto it = texts.unread.find(name); it != texts.unread.end())
      return tl::unexpected(it->second);
    const auto it = texts.files.find(name);
    if (it == texts.files.end()) continue;
    if (name.ends_with(".jinja")) return Source{join_path(directory, name), it->second};
    const std::map<std::string, std::string> named = templates_by_name(it->second);
    for (const char* wanted : {"tool_use", "default"})
      if (const auto found = named.find(wanted);
          found != named.end() && (tools || found->first == "default"))
        return Source{named_in(directory, name), found->second};
    if (!named.empty() && nameless.empty())
      nameless = without_default(join_path(directory, name), named);
  }
  if (!nameless.empty()) return fail(Code::kNotFound, "{}", nameless);
  if (path_exists(directory) && !is_folder(directory))
    return fail(Code::kNotFound,
                "{}: has no chat template (the file holds no tokenizer.chat_template), whether or "
                "not the model was "
                "trained on conversations; give it a text to continue",
                directory);
  return fail(Code::kNotFound,
              "{}: has no chat template (chat_template.jinja, or chat_template in {}): it was not "
              "trained on conversations; give it a text to continue",
              directory,
              kTokenizerConfigName);
}

Result<Source> find_template(const ModelTexts& texts, bool tools, const std::string& directory) {
  TRY_ASSIGN(Source source, any_template(texts, tools, directory));
  const size_t good = text::well_formed_prefix(source.text);
  if (good < source.text.size())
    return fail(Code::kInvalidInput,
                "{}: is not UTF-8 at byte {}, and a chat template is text",
                source.path,
                good);
  return source;
}

enum class Texts { kAll, kKeys };

/// Calls f(text) for every text within `json`, keys included or they alone, to the first failure.
template <typename F>
Result<void> each_text(const Json& json, Texts which, const F& f) {
  if (json.is_string() && which == Texts::kAll) return f(json.get_ref<const std::string&>());
  if (json.is_array())
    for (const Json& item : json) TRY(each_text(item, which, f));
  if (json.is_object())
    for (const auto& [key, item] : json.items()) {
      TRY(f(key));
      TRY(each_text(item, which, f));
    }
  return {};
}

/// A text that a user wrote must mean what it says: the text of a control token within it would be
/// that token once the template has put all into one.
Result<void> check_plain(const text::Tokenizer& tokenizer,
                         const std::string& content,
                         const std::string& where) {
  std::vector<int32_t> parsed, plain;
  tokenizer.encode(content, text::Tokenizer::Specials::kParse, parsed);
  tokenizer.encode(content, text::Tokenizer::Specials::kPlain, plain);
  const std::set<int32_t> ordinary(plain.begin(), plain.end());
  for (const int32_t id : parsed) {
    const std::string_view bytes = tokenizer.token_bytes(id);
    const bool blank = bytes.find_first_not_of(" \t\r\n") == std::string_view::npos;
    if (!blank && !ordinary.contains(id))
      return fail(Code::kInvalidInput,
                  "{}: holds {}, which is a control token of this model; write it differently",
                  where,
                  printable(bytes));
  }
  return {};
}

}  // namespace

Result<void> check_whole_numbers(std::string_view text, const std::string& path) {
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '"') {
      for (++i; text[i] != '"'; ++i) i += text[i] == '\\' ? 1 : 0;
      ++i;
      continue;
    }
    const size_t end = std::min(text.find_first_not_of("+-.eE0123456789", i), text.size());
    const std::string_view number = text.substr(i, end - i);
    int64_t value = 0;
    if (number.find_first_of(".eE") == std::string_view::npos &&
        std::from_chars(number.data(), number.data() + number.size(), value).ec ==
            std::errc::result_out_of_range)
      return fail(Code::kInvalidInput, "{}: the number {} is beyond 63 bits", path, number);
    i = std::max(end, i + 1);
  }
  return {};
}

Result<void> check_numbers(const Json& json, const std::string& path) {
  // What is beyond 64 bits was not read.
  if (json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX)
    return fail(
        Code::kInvalidInput, "{}: the number {} is beyond 63 bits", path, json.get<uint64_t>());
  if (json.is_structured())
    for (const Json& item : json) TRY(check_numbers(item, path));
  return {};
}

namespace {

struct Conversation {
  Json messages, tools = nullptr, more = Json::object();
  bool generation_prompt = true;
};

/// A list of objects, or null; or JSON of that in a text, as those write it who keep it in tables.
Result<Json> read_tools(Json tools, const std::string& path) {
  if (tools.is_string()) {
    TRY_ASSIGN(tools, parse_ordered_json(tools.get<std::string>(), path + ": tools"));
    TRY(check_numbers(tools, path + ": tools"));
  }
  if (!tools.is_array() && !tools.is_null())
    return fail(Code::kInvalidInput, "{}: tools must be a list", path);
  for (size_t i = 0; i < tools.size(); ++i)
    if (!tools[i].is_object())
      return fail(Code::kInvalidInput, "{}: tools[{}] must be an object", path, i);
  return tools;
}

Result<Conversation> read_conversation(Json json, const std::string& path) {
  TRY(check_numbers(json, path));
  Conversation c;
  if (json.is_array()) {
    c.messages = std::move(json);
  } else if (json.is_object()) {
    for (auto& [name, value] : json.get_ref<Json::object_t&>()) {
      if (name == "messages")
        c.messages = std::move(value);
      else if (name == "tools")
        c.tools = std::move(value);
      else if (name == "add_generation_prompt" && value.is_boolean())
        c.generation_prompt = value.get<bool>();
      else if (name == "chat_template_kwargs" && value.is_object())
        c.more = std::move(value);
      else
        return fail(
            Code::kInvalidInput,
            "{}: {} is no field of a conversation, or of the wrong type; there are messages, "
            "tools, add_generation_prompt and chat_template_kwargs",
            path,
            printable(name));
    }
  }
  TRY_ASSIGN(c.tools, read_tools(std::move(c.tools), path));
  if (!c.messages.is_array() || c.messages.empty())
    return fail(Code::kInvalidInput, "{}: must hold a list of messages, at least one", path);
  for (size_t i = 0; i < c.messages.size(); ++i)
    if (!c.messages[i].is_object() || !c.messages[i].contains("role") ||
        !c.messages[i]["role"].is_string())
      return fail(
          Code::kInvalidInput, "{}: message {} must be an object with a \"role\"", path, i + 1);
  return c;
}

size_t nones(std::string_view text) {
  constexpr std::string_view kNone = "None";
  size_t count = 0;
  for (size_t at = text.find(kNone); at != text.npos; at = text.find(kNone, at + 1)) ++count;
  return count;
}

/// Texts that the model did not write must hold no control token's.
Result<void> check_texts(const ModelTexts& texts,
                         const Conversation& c,
                         const std::string& path,
                         std::string* place = nullptr) {
  const auto check = [&](const Json& json, Texts which, const std::string& where) {
    Result<void> plain = each_text(json, which, [&](const std::string& content) {
      return check_plain(*texts.tokenizer, content, fmt::format("{}: {}", path, where));
    });
    if (!plain && place != nullptr) *place = where;
    return plain;
  };
  for (size_t i = 0; i < c.messages.size(); ++i) {
    // The model's own words may hold its tokens.
    const bool own = c.messages[i]["role"] == "assistant";
    for (const auto& [key, value] : c.messages[i].items()) {
      const std::string message = fmt::format("messages[{}]", i);
      TRY(check(key, Texts::kAll, message));
      TRY(check(value, own ? Texts::kKeys : Texts::kAll, message + "." + key));
    }
  }
  TRY(check(c.tools, Texts::kAll, "tools"));
  return check(c.more, Texts::kAll, "chat_template_kwargs");
}

}  // namespace

struct ChatRenderer::State {
  text::ChatTemplate chat;
  Conversation conversation;
  Json context;  // without messages
  Moment now;
};

ChatRenderer::ChatRenderer(std::unique_ptr<State> state) : state_(std::move(state)) {}
ChatRenderer::ChatRenderer(ChatRenderer&&) noexcept = default;
ChatRenderer& ChatRenderer::operator=(ChatRenderer&&) noexcept = default;
ChatRenderer::~ChatRenderer() = default;

size_t ChatRenderer::messages() const { return state_->conversation.messages.size(); }
bool ChatRenderer::generation_prompt() const { return state_->conversation.generation_prompt; }

Result<ChatRenderer> ChatRenderer::make(const ModelTexts& texts,
                                        std::string_view conversation,
                                        const std::string& path,
                                        const std::string& directory,
                                        const Moment& now) {
  TRY_ASSIGN(Json json, parse_ordered_json(conversation, path));
  TRY_ASSIGN(ChatRenderer renderer, unchecked(texts, std::move(json), path, directory, now));
  const Conversation& c = renderer.state_->conversation;
  TRY(check_texts(texts, c, path));
  return renderer;
}

Result<void> ChatRenderer::check_not_padded(const std::string& path) const {
  return check_padding(state_->conversation.messages, state_->conversation.tools, path);
}

Result<ChatRenderer> ChatRenderer::unchecked(const ModelTexts& texts,
                                             Json conversation,
                                             const std::string& path,
                                             const std::string& directory,
                                             const Moment& now) {
  TRY_ASSIGN(Conversation c, read_conversation(std::move(conversation), path));
  TRY_ASSIGN(const Source source, find_template(texts, c.tools.is_array(), directory));
  TRY_ASSIGN(text::ChatTemplate chat, text::ChatTemplate::parse(source.text, source.path));
  // As Transformers: documents are defined without any, and what the conversation says comes first.
  Json context = {{"documents", nullptr}};
  for (const auto& [name, text] : template_tokens(texts))
    if (text) context[name] = *text;
  context.update(c.more);
  context["tools"] = c.tools;
  return ChatRenderer(
      std::make_unique<State>(State{std::move(chat), std::move(c), std::move(context), now}));
}

Result<std::string> ChatRenderer::text(size_t messages, bool generation_prompt) const {
  const Json& all = state_->conversation.messages;
  Json context = state_->context;
  context["messages"] = Json(all.begin(), all.begin() + static_cast<ptrdiff_t>(messages));
  context["add_generation_prompt"] = generation_prompt;
  return state_->chat.render(
      context, [this](const std::string& format) { return state_->now.written(format); });
}

Result<ChatPrompt> render_chat(const ModelTexts& texts,
                               std::string_view conversation,
                               const std::string& path,
                               const std::string& directory,
                               const Moment& now) {
  TRY_ASSIGN(const ChatRenderer renderer,
             ChatRenderer::make(texts, conversation, path, directory, now));
  ChatPrompt out;
  TRY_ASSIGN(out.text, renderer.text(renderer.messages(), renderer.generation_prompt()));
  texts.tokenizer->encode(out.text, text::Tokenizer::Specials::kParse, out.ids);
  return out;
}

Result<std::string> chat_text(const ModelTexts& texts,
                              const Json& conversation,
                              const std::string& path,
                              const std::string& directory) {
  TRY_ASSIGN(const ChatRenderer renderer,
             ChatRenderer::unchecked(texts, conversation, path, directory, Moment::now()));
  return renderer.text(renderer.messages(), renderer.generation_prompt());
}

Result<void> check_chat(const ModelTexts& texts,
                        const Json& conversation,
                        const std::string& path,
                        std::string* place) {
  TRY_ASSIGN(const Conversation c, read_conversation(conversation, path));
  return check_texts(texts, c, path, place);
}

Result<void> check_chat_text(const ModelTexts& texts,
                             std::string_view text,
                             const std::string& where) {
  return check_plain(*texts.tokenizer, std::string(text), where);
}

bool needs_content(const Result<std::string>& with_null, const Result<std::string>& with_text) {
  return with_text && (!with_null || nones(*with_null) > nones(*with_text));
}

Result<std::string> chat_templates_of(const ModelTexts& texts, const std::string& directory) {
  TRY_ASSIGN(const Source plain, find_template(texts, false, directory));
  TRY_ASSIGN(const Source tools, find_template(texts, true, directory));
  return plain.text + '\0' + tools.text;
}

Result<std::string> chat_templates_fingerprint(const ModelTexts& texts,
                                               const std::string& directory) {
  TRY_ASSIGN(const std::string templates, chat_templates_of(texts, directory));
  return blake2b_hex(templates.data(), templates.size());
}

Result<std::string> chat_fingerprint(const ModelTexts& texts, const std::string& directory) {
  TRY_ASSIGN(std::string written, chat_templates_of(texts, directory));
  const std::string templates = written;
  const NamedTokens before = template_tokens_by_id(texts);
  for (const auto& [name, text] : template_tokens(texts)) {
    if (templates.find(name) == templates.npos) continue;
    const auto it = before.find(name);
    if ((it == before.end() ? std::nullopt : it->second) == text) continue;
    written += '\0' + name;
    if (text) written += '=' + *text;
  }
  return blake2b_hex(written.data(), written.size());
}

std::string tokens_given_otherwise(const ModelTexts& texts, const std::string& templates) {
  const NamedTokens before = template_tokens_by_id(texts);
  const auto shown = [](const std::optional<std::string>& text) {
    return text ? printable(*text) : std::string("none");
  };
  std::string all;
  for (const auto& [name, now] : template_tokens(texts)) {
    const auto it = before.find(name);
    const std::optional<std::string> then = it == before.end() ? std::nullopt : it->second;
    if (then == now || templates.find(name) == templates.npos) continue;
    all +=
        fmt::format("{}{} {} then, {} now", all.empty() ? "" : "; ", name, shown(then), shown(now));
  }
  return all;
}

Result<void> ChatRenderer::check(const ModelTexts& texts, const std::string& directory) {
  for (const bool tools : {false, true}) {
    TRY_ASSIGN(const Source source, find_template(texts, tools, directory));
    TRY(text::ChatTemplate::parse(source.text, source.path));
  }
  return {};
}

void use_chat_template_of(ModelTexts& texts, std::string source, const std::string& file) {
  texts.files[std::string(kGivenTemplate) + file] = std::move(source);
}

void use_chat_template(ModelTexts& texts, std::string source) {
  texts.files.erase("additional_chat_templates/tool_use.jinja");
  texts.unread.erase("additional_chat_templates/tool_use.jinja");
  texts.unread.erase("chat_template.jinja");
  texts.files["chat_template.jinja"] = std::move(source);
}

text::AnswerSyntax answer_syntax(const ModelTexts& texts) {
  const Result<Source> source = find_template(texts, true, "");
  return text::answer_syntax(source ? source->text : "", *texts.tokenizer);
}

}  // namespace ferry
