#include "text/chat_template.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "text/jinja/lexer.h"
#include "text/jinja/parser.h"

namespace ferry::text {

ChatTemplate::ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

namespace {

/// Names of templates that llama.cpp knows by heart: GGUF files of old have one in place of the text.
constexpr std::string_view kNames[] = {
    "chatml",    "llama2",    "llama3",    "llama4",  "mistral-v1", "mistral-v3", "mistral-v7",
    "phi3",      "phi4",      "zephyr",    "gemma",   "vicuna",     "openchat",   "deepseek",
    "deepseek2", "deepseek3", "command-r", "falcon3", "chatglm4",   "granite"};

std::string_view trimmed(std::string_view text) {
  constexpr const char* kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == text.npos) return "";
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

constexpr std::string_view kGoWords[] = {"if", "range", "with"};

/// Whether it is of Go's template language, as Ollama's are: expressions begin with a dot, and statements stand in
/// {{ }}. Of what Jinja's lexer reads, so that what stands in a Jinja text is none of it; `{{ if .Name }}` is Jinja
/// too, the field of a variable, which nobody calls so.
bool is_go(const std::vector<jinja::Token>& tokens) {
  using Kind = jinja::Token::Kind;
  const auto at = [&](size_t i) -> const jinja::Token& {
    return tokens[std::min(i, tokens.size() - 1)];
  };
  const auto is_dot = [&](size_t i) { return at(i).kind == Kind::kOperator && at(i).text == "."; };
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (at(i).kind != Kind::kPrintBegin) continue;
    if (is_dot(i + 1) && at(i + 2).kind == Kind::kName) return true;
    const bool word =
        at(i + 1).kind == Kind::kName &&
        std::find(std::begin(kGoWords), std::end(kGoWords), at(i + 1).text) != std::end(kGoWords);
    if (word && is_dot(i + 2)) return true;
  }
  return false;
}

/// The same of a text that Jinja's lexer does not read: it has no "$", and no ":=".
bool is_go(std::string_view source) {
  for (size_t at = source.find("{{"); at != source.npos; at = source.find("{{", at + 2)) {
    const size_t begin = source.find_first_not_of("- \t\r\n", at + 2);
    if (begin == source.npos) return false;
    const std::string_view rest = source.substr(begin);
    const auto is_name = [&](size_t i) {
      return i < rest.size() && ((rest[i] >= 'A' && rest[i] <= 'Z') || rest[i] == '_');
    };
    if (rest[0] == '.' && is_name(1)) return true;
    for (const std::string_view word : kGoWords) {
      if (!rest.starts_with(word)) continue;
      const size_t next = rest.find_first_not_of(' ', word.size());
      if (next > word.size() && next != rest.npos && (rest[next] == '.' || rest[next] == '$'))
        return true;
    }
  }
  return false;
}

}  // namespace

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, const std::string& path) {
  const std::string_view name = trimmed(source);
  if (std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames))
    return fail(Code::kInvalidInput,
                "{}: is the name of a template, \"{}\", and not its text: give the model's own "
                "template (Jinja)",
                path,
                name);
  const Result<std::vector<jinja::Token>> tokens = jinja::tokenize(source, path);
  if (tokens ? is_go(*tokens) : is_go(source))
    return fail(Code::kInvalidInput,
                "{}: is a template in Go's language, as Ollama's are, and not in Jinja: give the "
                "model's own",
                path);
  ChatTemplate t;
  t.path_ = path;
  TRY_ASSIGN(t.root_, jinja::parse(source, path));
  return t;
}

Result<std::string> ChatTemplate::render(const nlohmann::ordered_json& context,
                                         const std::function<std::string(const std::string&)>& now,
                                         const jinja::Limits& limits) const {
  jinja::Interpreter interpreter(limits, now);
  try {
    const jinja::Value variables = jinja::Value::from_json(context);
    return interpreter.run(*root_, variables.dict());
  } catch (const jinja::TemplateError& e) {
    return fail(Code::kInvalidInput, "{}: line {}: {}", path_, interpreter.line(), e.what());
  }
}

}  // namespace ferry::text
