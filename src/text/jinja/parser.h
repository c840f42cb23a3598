// Tokens into a syntax tree, by Jinja's grammar. Left out, and refused with the line: inheritance,
// inclusion, imports, call blocks, recursive loops, autoescaping: no chat template needs them.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "text/jinja/node.h"

namespace ferry::text::jinja {

/// A kBlock of the whole template. Errors: kInvalidInput with path and line. Nesting is limited, so
/// that no template can exhaust the stack.
Result<NodePtr> parse(std::string_view source, const std::string& path);

}  // namespace ferry::text::jinja
