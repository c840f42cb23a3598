#include "engine/constrained_answer.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace ferry::engine {

ConstrainedAnswer::ConstrainedAnswer(std::shared_ptr<const grammar::Constraint> constraint,
                                     std::vector<int32_t> end_tokens,
                                     int64_t vocabulary)
    : matcher_(std::move(constraint)),
      end_tokens_(std::move(end_tokens)),
      vocabulary_(vocabulary) {}

Result<std::span<const int32_t>> ConstrainedAnswer::allowed_after(std::span<const int32_t> answer) {
  const bool goes_on =
      answer.size() >= read_.size() && std::equal(read_.begin(), read_.end(), answer.begin());
  if (!goes_on) {  // a pass that failed had gone further
    matcher_.restart();
    read_.clear();
  }
  for (const int32_t id : answer.subspan(read_.size())) {
    check(matcher_.accept(id), "token {} is no part of the answer's form", id);
    read_.push_back(id);
  }
  allowed_.clear();
  const std::span<const uint64_t> mask = matcher_.allowed();
  for (size_t word = 0; word < mask.size(); ++word)
    for (uint64_t left = mask[word]; left != 0; left &= left - 1) {
      const auto id = static_cast<int32_t>(word * 64) + std::countr_zero(left);
      if (id < vocabulary_) allowed_.push_back(id);
    }
  const auto ends = [&](int32_t id) {
    return std::find(end_tokens_.begin(), end_tokens_.end(), id) != end_tokens_.end();
  };
  std::erase_if(allowed_, ends);
  if (matcher_.may_end()) {
    allowed_.insert(allowed_.end(), end_tokens_.begin(), end_tokens_.end());
    std::sort(allowed_.begin(), allowed_.end());
    allowed_.erase(std::unique(allowed_.begin(), allowed_.end()), allowed_.end());
  }
  if (allowed_.empty())
    return fail(
        Code::kInvalidInput,
        "the answer's form wants next what this model has no token for, or only tokens that end "
        "its answers: it cannot go on after {} tokens",
        answer.size());
  return std::span<const int32_t>(allowed_);
}

}  // namespace ferry::engine
