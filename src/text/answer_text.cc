#include "text/answer_text.h"

#include <algorithm>

namespace ferry::text {

AnswerText::AnswerText(const Tokenizer& tokenizer,
                       std::vector<std::string> stop,
                       std::vector<int32_t> marks)
    : tokenizer_(&tokenizer),
      decoder_(tokenizer, true),
      marks_(std::move(marks)),
      stop_(std::move(stop)) {
  std::erase_if(stop_, [](const std::string& s) { return s.empty(); });
}

std::string AnswerText::push(int32_t id) {
  if (stopped()) return {};
  if (std::find(marks_.begin(), marks_.end(), id) == marks_.end()) {
    held_ += decoder_.push(id);
  } else {
    held_ += decoder_.flush();
    held_ += tokenizer_->token_bytes(id);
  }
  return certain();
}

std::string AnswerText::flush() {
  if (stopped()) return {};
  held_ += decoder_.flush();
  std::string text = certain();
  if (!stopped()) text += held_;
  held_.clear();
  return text;
}

/// Takes what lies before the first stop string or, where there is none, before the longest end that
/// one begins with.
std::string AnswerText::certain() {
  size_t end = held_.size();
  for (const std::string& s : stop_)
    if (const size_t at = held_.find(s); at < end) {
      end = at;
      stopped_by_ = s;
    }
  if (!stopped())
    for (const std::string& s : stop_)
      for (size_t n = std::min(s.size() - 1, held_.size()); n > 0; --n)
        if (held_.ends_with(std::string_view(s).substr(0, n))) {
          end = std::min(end, held_.size() - n);
          break;
        }
  std::string text = held_.substr(0, end);
  held_.erase(0, stopped() ? held_.size() : end);
  return text;
}

}  // namespace ferry::text
