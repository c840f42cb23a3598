// The form that a chat's request wants its answer to have: "response_format", and tools that must be
// called or whose arguments must be as they say.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "base/json_fields.h"
#include "grammar/answer_form.h"
#include "grammar/matcher.h"
#include "serve/api_error.h"
#include "serve/form_cache.h"
#include "serve/model_info.h"

namespace ferry::serve {

struct AskedForm {
  std::optional<grammar::AnswerForm> form;  // nothing: as the model answers
  std::vector<bool> strict;                 // of its tools
  /// Text or calls, where tools may be called and need not be; of tools that are not strict any arguments.
  std::optional<grammar::AnswerForm> offered;
};

/// "response_format": text, json_object, json_schema (which always holds, "strict" or not); where tools are
/// offered, that or calls of them.
/// `request` is the same in the order of its fields.
void read_response_format(JsonFields& fields,
                          const nlohmann::ordered_json& request,
                          AskedForm& asked);

/// "tool_choice" of these tools: none and auto, where tools are held to what they say if they are
/// strict; required, or a name, where there is no answer but a call. Of tools that are not strict a
/// schema that cannot be held to is none. False: no tool is to be called.
bool read_tool_choice(JsonFields& fields,
                      std::vector<grammar::Tool> tools,
                      std::vector<bool> strict,
                      bool several,
                      AskedForm& asked);

/// Errors: 400, naming the schema or the tool, for what cannot be held to. `in_short`: a form that may take long to
/// compile is left off (ApiError::takes_long).
ApiResult<std::shared_ptr<const grammar::Constraint>> constraint_of(
    const ModelInfo& model,
    FormCache& forms,
    AskedForm asked,
    grammar::AnswerForm::Thought thought,
    bool in_short);

}  // namespace ferry::serve
