// Turns ids into text as they are generated, holding back a character until all its bytes are
// there.
#pragma once

#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace ferry::text {

/// One stream of ids. The tokenizer must outlive it. Not for several threads at once.
/// All that push and flush return, joined, is the decoded bytes with every maximal ill-formed
/// stretch replaced by U+FFFD, however the ids were cut.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_specials = false)
      : tokenizer_(&tokenizer), skip_specials_(skip_specials) {}

  /// The text that is certain once this id is known: well-formed UTF-8, possibly empty.
  std::string push(int32_t id);
  /// What is held back, replaced by U+FFFD since nothing will complete it. The stream starts
  /// afresh.
  std::string flush();
  /// Bytes held back: 0 to 3.
  size_t bytes_held() const { return held_.size(); }

 private:
  const Tokenizer* tokenizer_;
  bool skip_specials_;
  std::string held_;
};

}  // namespace ferry::text
