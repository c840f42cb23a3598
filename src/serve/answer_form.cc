#include "serve/answer_form.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace ferry::serve {

using grammar::AnswerForm;

namespace {

/// Of schemas and tools. The worst forms of so many bytes that were tried are compiled in a fifth of a second; larger
/// ones may take seconds.
constexpr size_t kShortFormBytes = 2 << 10;

bool may_take_long(const AnswerForm& form) {
  size_t bytes = form.schema.size();
  for (const grammar::Tool& tool : form.tools) bytes += tool.name.size() + tool.parameters.size();
  return bytes > kShortFormBytes;
}

}  // namespace

void read_response_format(JsonFields& fields,
                          const nlohmann::ordered_json& request,
                          AskedForm& asked) {
  if (!fields.has("response_format")) return;
  JsonFields format = fields.object("response_format");
  const std::string type = format.text("type");
  if (type == "text") format.refuse_unknown({}, "is no field of a format that is text");
  if (fields.problem() || type == "text") return;
  if (asked.form && asked.form->kind == AnswerForm::Kind::kCalls)
    return fields.refuse("response_format", "is not supported beside tools that must be called");
  if (type == "json_object" && format.has("schema")) {
    format.members("schema");  // as llama.cpp and hosts of open models have it
    if (fields.problem()) return;
    asked.form = AnswerForm{.kind = AnswerForm::Kind::kSchema,
                            .schema = json_text(request.at("response_format").at("schema"))};
  } else if (type == "json_object") {
    asked.form = AnswerForm{.kind = AnswerForm::Kind::kObject};
  } else if (type == "json_schema") {
    JsonFields named = format.object("json_schema");
    named.text("name", "");
    named.text("description", "");
    named.boolean("strict", false);
    named.members("schema");
    named.refuse_unknown({}, "is no field of a schema's format");
    if (fields.problem()) return;
    asked.form = AnswerForm{
        .kind = AnswerForm::Kind::kSchema,
        .schema = json_text(request.at("response_format").at("json_schema").at("schema"))};
  } else {
    format.refuse("type", "must be text, json_object or json_schema");
  }
  format.refuse_unknown({}, "is no field of a response's format");
  if (!asked.offered || fields.problem()) return;
  asked.form->tools = asked.offered->tools;
  asked.form->several_calls = asked.offered->several_calls;
}

bool read_tool_choice(JsonFields& fields,
                      std::vector<grammar::Tool> tools,
                      std::vector<bool> strict,
                      bool several,
                      AskedForm& asked) {
  const nlohmann::json* const choice = fields.find("tool_choice");
  if (choice != nullptr && *choice == "none") return false;
  const bool required = choice != nullptr && *choice == "required";
  const bool named = choice != nullptr && choice->is_object();
  if (choice != nullptr && *choice != "auto" && !required && !named) {
    fields.refuse("tool_choice", "must be none, auto, required or a function's name");
    return false;
  }
  if (named) {
    JsonFields which = fields.object("tool_choice");
    which.only("type", "function");
    JsonFields function = which.object("function");
    const std::string name = function.text("name");
    function.refuse_unknown({}, "is no field of a choice");
    which.refuse_unknown({}, "is no field of a choice");
    const auto at = std::find_if(
        tools.begin(), tools.end(), [&](const grammar::Tool& t) { return t.name == name; });
    if (fields.problem()) return false;
    if (at == tools.end()) {
      fields.refuse("tool_choice", "names a function that is not among the tools");
      return false;
    }
    const bool is_strict = strict[static_cast<size_t>(at - tools.begin())];
    tools = {*at};
    strict = {is_strict};
    several = false;
  }
  if (required && tools.empty()) fields.refuse("tool_choice", "requires tools, and there are none");
  if (fields.problem() || tools.empty()) return false;
  const bool held = required || named;
  if (!held)
    for (size_t i = 0; i < tools.size(); ++i)
      if (!strict[i]) tools[i].parameters = "{}";
  const bool any_strict = std::find(strict.begin(), strict.end(), true) != strict.end();
  AnswerForm form{.kind = held ? AnswerForm::Kind::kCalls : AnswerForm::Kind::kTextOrCalls,
                  .tools = std::move(tools),
                  .several_calls = several};
  if (!held) asked.offered = form;
  if (held || any_strict) asked.form = std::move(form);
  asked.strict = std::move(strict);
  return true;
}

ApiResult<std::shared_ptr<const grammar::Constraint>> constraint_of(const ModelInfo& model,
                                                                    FormCache& forms,
                                                                    AskedForm asked,
                                                                    AnswerForm::Thought thought,
                                                                    bool in_short) {
  AnswerForm& form = *asked.form;
  form.thought = thought;
  form.syntax = model.syntax.tools;
  const bool calls = !form.tools.empty();
  const bool document =
      form.kind == AnswerForm::Kind::kObject || form.kind == AnswerForm::Kind::kSchema;
  const auto refused = [&](const Status& status) {
    ApiError error = api_error(status);
    // Where both may be at fault: which it is alone.
    AnswerForm alone = form;
    alone.tools.clear();
    const bool of_tools = calls && (!document || forms.automaton(alone));
    error.param = of_tools ? "tools" : "response_format";
    return tl::unexpected(error);
  };
  if (!model.vocabulary) return refused(model.vocabulary.error());
  if (in_short && may_take_long(form) && !forms.keeps(form))
    return tl::unexpected(ApiError{.takes_long = true});
  Result<std::shared_ptr<const grammar::Automaton>> automaton = forms.automaton(form);
  if (!automaton && calls) {
    for (size_t i = 0; i < form.tools.size(); ++i)
      if (!asked.strict[i]) form.tools[i].parameters = "{}";
    automaton = forms.automaton(form);
  }
  if (!automaton) return refused(automaton.error());
  return std::make_shared<const grammar::Constraint>(
      grammar::Constraint{.automaton = *std::move(automaton), .vocabulary = *model.vocabulary});
}

}  // namespace ferry::serve
