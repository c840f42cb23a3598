// The text of an answer as it is shown: ids become well-formed UTF-8, and the text ends before the
// first stop string. What may yet become part of one is held back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/stream_decoder.h"

namespace ferry::text {

/// One answer. The tokenizer must outlive it. All that push and flush return, joined, is the text.
class AnswerText {
 public:
  /// Empty stop strings are ignored. Special tokens are left out, but for `marks` (AnswerSyntax).
  AnswerText(const Tokenizer& tokenizer,
             std::vector<std::string> stop,
             std::vector<int32_t> marks = {});

  /// The text that is certain once this id is known.
  std::string push(int32_t id);
  /// What is held back: the answer has ended without a stop string.
  std::string flush();
  /// A stop string came: nothing will be returned any more.
  bool stopped() const { return !stopped_by_.empty(); }
  const std::string& stopped_by() const { return stopped_by_; }  // empty: none has

 private:
  std::string certain();

  const Tokenizer* tokenizer_;
  StreamDecoder decoder_;
  std::vector<int32_t> marks_;
  std::vector<std::string> stop_;
  std::string held_;
  std::string stopped_by_;
};

}  // namespace ferry::text
