// What requests are read with and answers are written with: all of a model but its weights.
#pragma once

#include <memory>
#include <string>

#include "checkpoint/model_texts.h"
#include "grammar/vocabulary.h"
#include "text/answer_parser.h"

namespace ferry::serve {

/// Immutable once it is served, and read on several threads.
struct ModelInfo {
  std::string directory;
  ModelTexts texts;  // with a tokenizer
  text::AnswerSyntax syntax;
  /// For answers that are held to a form; why they cannot be, if the vocabulary cannot spell all.
  Result<std::shared_ptr<const grammar::Vocabulary>> vocabulary = nullptr;
  std::string facts;  // JSON: what GET /ferry/passport says
};

}  // namespace ferry::serve
