// What is served, once it is loaded.
#pragma once

#include <algorithm>
#include <memory>
#include <string>

#include "checkpoint/model_texts.h"
#include "engine/engine.h"
#include "grammar/vocabulary.h"
#include "models/causal_lm.h"
#include "text/answer_parser.h"

namespace ferry::serve {

/// All but the model is immutable, and read on several threads.
struct LoadedModel {
  std::string directory;
  std::unique_ptr<models::CausalLm> model;  // the engine's alone
  ModelTexts texts;                         // with a tokenizer
  text::AnswerSyntax syntax;
  /// For answers that are held to a form; why they cannot be, if the vocabulary cannot spell all.
  Result<std::shared_ptr<const grammar::Vocabulary>> vocabulary = nullptr;
  engine::EngineOptions engine;
  std::string facts;  // JSON: what GET /ferry/passport says

  /// Tokens that a request has room for, prompt and answer.
  int64_t context() const { return std::min(model->max_positions(), engine.cache_tokens); }
};

}  // namespace ferry::serve
