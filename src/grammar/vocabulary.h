// A vocabulary arranged for asking which tokens may come next: a tree over the bytes of its tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace ferry::grammar {

/// Immutable: made once for a tokenizer, and shared.
class Vocabulary {
 public:
  /// A node of a tree, in the order of a walk through it: a node's first child follows it, and what
  /// does not begin like it begins at `end`.
  struct Node {
    uint32_t end;
    uint32_t tokens, tokens_end;  // of tree.tokens: those that end here
    uint16_t depth;               // bytes of the path, this one's included
    uint8_t byte;
  };
  struct Tree {
    std::vector<Node> nodes;
    std::vector<int32_t> tokens;
  };

  /// Special tokens are none of an answer, but for `marks` (text::AnswerSyntax), whose texts count as
  /// they are written. Errors: kInvalidInput if a byte has no token of its own that JSON or its texts need; bytes of
  /// control characters and of characters that nobody has assigned may be lacking.
  static Result<std::shared_ptr<const Vocabulary>> of(const text::Tokenizer& tokenizer,
                                                      const std::vector<int32_t>& marks = {});
  /// Of the bytes of each token, which are none where it is no part of an answer. Each byte that is to
  /// be read needs a token of its own, or walks may find nothing that is allowed.
  static std::shared_ptr<const Vocabulary> of(std::vector<std::string> tokens);

  int32_t size() const { return static_cast<int32_t>(bytes_.size()); }
  /// The bytes of a token; none where it is no part of an answer.
  const std::string& bytes(int32_t id) const { return bytes_[static_cast<size_t>(id)]; }
  const Tree& all() const { return all_; }
  /// All but the plain ones: those that a JSON string holds as they are, whole characters without
  /// quotation marks, backslashes and control characters. These are most, and are allowed together.
  const Tree& not_plain() const { return not_plain_; }
  const std::vector<uint64_t>& plain() const { return plain_; }  // a bit each
  uint32_t longest_plain() const { return longest_plain_; }      // characters

 private:
  Vocabulary() = default;
  std::vector<std::string> bytes_;
  Tree all_, not_plain_;
  std::vector<uint64_t> plain_;
  uint32_t longest_plain_ = 0;
};

}  // namespace ferry::grammar
