// Which tokens may come next in an answer that is held to a form.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "grammar/matcher.h"

namespace ferry::engine {

/// One answer. What it says depends on the answer so far alone: it follows one that goes on, and reads
/// another one from its beginning.
class ConstrainedAnswer {
 public:
  /// `vocabulary`: the model's, whose ids may be more or fewer than the tokenizer's.
  ConstrainedAnswer(std::shared_ptr<const grammar::Constraint> constraint,
                    std::vector<int32_t> end_tokens,
                    int64_t vocabulary);

  /// The tokens that may follow these, in ascending order; never none. End tokens are among them
  /// where the answer may end, and nowhere else. Errors: kInvalidInput: nothing may follow, which is
  /// where end tokens are all that the form would have next.
  Result<std::span<const int32_t>> allowed_after(std::span<const int32_t> answer);

 private:
  grammar::Matcher matcher_;
  std::vector<int32_t> end_tokens_;
  int64_t vocabulary_;
  std::vector<int32_t> read_, allowed_;
};

}  // namespace ferry::engine
