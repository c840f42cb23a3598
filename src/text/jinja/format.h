// Python's two ways of writing values by a pattern, as chat templates call them: "%05.2f" % x (also |format) and
// "{:>8}".format(x). Of 63 bits whole numbers have, as everywhere here.
#pragma once

#include <string>

#include "text/jinja/interpreter.h"

namespace ferry::text::jinja {

// Each throws TemplateError for what Python refuses, and for the few things that are not supported: the flag "z",
// %a of letters beyond ASCII, precisions above 1000, halves of characters (%c of a surrogate).

/// `pattern` % `values`: a tuple's one after the other, a dict's by their names, or the one value.
Value percent_format(Interpreter& in, const std::string& pattern, const Value& values);

/// `pattern`.format(...).
Value brace_format(Interpreter& in, const std::string& pattern, const Arguments& values);

}  // namespace ferry::text::jinja
