#include "text/chat_template.h"

#include <nlohmann/json.hpp>

#include "text/jinja/parser.h"

namespace ferry::text {

ChatTemplate::ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, const std::string& path) {
  TRY_ASSIGN(jinja::NodePtr root, jinja::parse(source, path));
  ChatTemplate t;
  t.path_ = path;
  t.root_ = std::move(root);
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
