// JSON Schema: the documents that satisfy one, as an automaton reads them.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "grammar/automaton.h"
#include "grammar/json_parts.h"
#include "grammar/schema_merge.h"

namespace ferry::grammar {

/// A document that satisfies the schema (a text in JSON), in the spelling that programs write: fields
/// in the order of `properties`, then others; white space as JsonParts has it; numbers of at most 40
/// digits before the point, those that are to be whole without fraction or exponent, those with bounds
/// without exponent; strings with a pattern, a
/// format or given values with characters escaped only where they must be. Everything that is read
/// satisfies the schema.
///
/// Taken, of drafts 7 to 2020-12: type, enum, const, properties, required, additionalProperties,
/// items, prefixItems, additionalItems, minItems, maxItems, minLength, maxLength, pattern, format,
/// minimum, maximum and the exclusive ones, anyOf, oneOf (of what cannot hold together), allOf, $ref
/// within the schema, $defs, true and false. What only explains is read over.
/// Errors: kInvalidInput, naming the place and the keyword: one that is not taken, a value that it
/// cannot have, more than the limits.
/// `name` is how messages call the schema; `work`: of all the answer's schemas so far.
Result<State> read_schema(AutomatonBuilder& to,
                          JsonParts& parts,
                          State from,
                          std::string_view schema,
                          const std::string& name,
                          SchemaWork& work);

/// A schema as a whole answer.
Result<std::shared_ptr<const Automaton>> schema_automaton(std::string_view schema,
                                                          const std::string& name);

}  // namespace ferry::grammar
