// The syntax tree of a template. One node type for all: what its parts mean depends on the kind.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/jinja/value.h"

namespace ferry::text::jinja {

struct Node;
using NodePtr = std::unique_ptr<Node>;

struct Node {
  enum class Kind {
    // Expressions. In brackets: the kids; null kids are absent parts.
    kLiteral,      // value
    kName,         // text
    kList,         // [elements]
    kTuple,        // [elements]
    kDict,         // [key, value, key, value, ...]
    kNot,          // [operand]
    kAnd,          // [left, right]
    kOr,           // [left, right]
    kNegative,     // [operand]
    kPositive,     // [operand]
    kArithmetic,   // text: + - * / // % **   [left, right]
    kConcat,       // ~ [parts]
    kCompare,      // words: the operators   [operands]
    kConditional,  // [condition, then, else]
    kAttribute,    // text: the name   [of]
    kItem,         // [of, index]
    kSlice,        // [of, begin, end, step]
    kCall,         // words: the arguments' names, "" without one   [callee, arguments...]
    kFilter,       // text: the name; words as for kCall   [input, arguments...]; a null input is
                   // what a filter block or a set block with filters has rendered
    kTest,         // text: the name; words as for kCall   [input, arguments...]
    // Statements.
    kBlock,        // [statements]
    kText,         // text, written as it is
    kOutput,       // [expression]
    kIf,           // [condition, block, condition, block, ..., null, else block]
    kFor,          // words: the targets   [iterable, filter, block, else block]
    kSet,          // words: the targets; text: the field of a namespace   [expression]
    kSetBlock,     // words: the target   [block, filters applied to null]
    kFilterBlock,  // [filters applied to null, block]
    kWith,         // words: the targets   [block, expressions...]
    kMacro,        // text: the name; words: the parameters   [block, defaults (null: none)...]
    kBreak,
    kContinue,
  };

  Kind kind;
  int line = 0;
  std::string text;
  Value value;
  std::vector<std::string> words;
  std::vector<NodePtr> kids;
};

}  // namespace ferry::text::jinja
