// Whether an answer is a JSON document that satisfies a schema. The judge is the automaton that answers are held to
// (grammar/schema.h), which reads one order of fields and one spelling: others are brought into these first.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "grammar/matcher.h"

namespace ferry::rl {

/// Immutable.
class SchemaCheck {
 public:
  /// `schema` is a text in JSON. Errors: of grammar::schema_automaton, naming the place and the keyword.
  static Result<SchemaCheck> compile(const std::string& schema);

  /// Whether the whole text is one document that satisfies the schema. The order of fields does not count, nor how a
  /// string is escaped, nor white space; a key that occurs twice is wrong. What cannot be told within limits (64 KiB,
  /// 64 levels, a million schemas looked at for the order of fields) is no such document, and neither is a number of
  /// more digits than grammar::schema_automaton reads. Time and memory are bounded for any schema and text.
  bool satisfied_by(std::string_view text) const;

 private:
  SchemaCheck(std::shared_ptr<const nlohmann::ordered_json> schema,
              std::shared_ptr<const grammar::Constraint> constraint)
      : schema_(std::move(schema)), constraint_(std::move(constraint)) {}

  std::shared_ptr<const nlohmann::ordered_json> schema_;
  std::shared_ptr<const grammar::Constraint> constraint_;
};

}  // namespace ferry::rl
