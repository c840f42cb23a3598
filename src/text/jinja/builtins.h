// What templates can call: Jinja's filters and tests, Python's methods of texts and dicts, and the
// functions that Transformers adds for chat templates.
#pragma once

#include <string>

#include "text/jinja/interpreter.h"

namespace ferry::text::jinja {

// Each throws TemplateError for a name that Ferry does not have, and for arguments that Python
// would not take either.
Value apply_filter(Interpreter& in,
                   const std::string& name,
                   const Value& value,
                   const Arguments& args);
bool apply_test(Interpreter& in,
                const std::string& name,
                const Value& value,
                const Arguments& args);

/// The method of a text, list or dict, bound to it; undefined if there is none.
Value method(const Value& of, const std::string& name);

/// range, namespace, dict, raise_exception, strftime_now.
Dict global_functions();

}  // namespace ferry::text::jinja
