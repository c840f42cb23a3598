// A template's text into tokens, with Jinja's rules for white space around tags. As chat templates
// are rendered everywhere: trim_blocks and lstrip_blocks on, one newline at the end dropped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ferry::text::jinja {

struct Token {
  enum class Kind {
    kData,        // text outside tags
    kTagBegin,    // {%
    kTagEnd,      // %}
    kPrintBegin,  // {{
    kPrintEnd,    // }}
    kName,
    kText,   // a string literal, its escapes resolved
    kWhole,  // digits
    kReal,
    kOperator,
    kEnd,  // of the template
  };
  Kind kind;
  std::string text;
  int line;
};

/// Errors: kInvalidInput with path and line: a tag or literal that does not end, a character that
/// no expression has.
Result<std::vector<Token>> tokenize(std::string_view source, const std::string& path);

}  // namespace ferry::text::jinja
