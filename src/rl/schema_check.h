// Whether an answer is a JSON document that satisfies a schema: the document is held against the schema, value by
// value, so neither the order of its fields nor how it is written counts.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry::rl {

/// Immutable; any number of threads may ask it. A copy shares what was compiled.
class SchemaCheck {
 public:
  /// `schema` is a text in JSON, of the keywords that answers can be held to. Errors: of grammar::schema_automaton,
  /// naming the place and the keyword.
  static Result<SchemaCheck> compile(const std::string& schema);

  /// Whether the whole text is one document that satisfies the schema, as JSON Schema has it. Numbers are compared as
  /// the 64-bit integers or doubles that they are: 2.0 and 2e0 are the integer 2. A key that occurs twice is wrong; so
  /// is what cannot be told within limits (64 KiB, 64 levels, numbers beyond doubles, three million looks at values and
  /// characters). Time and memory are bounded for any schema and text.
  bool satisfied_by(std::string_view text) const;

 private:
  struct Compiled;
  explicit SchemaCheck(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}

  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace ferry::rl
