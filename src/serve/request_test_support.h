// A model without weights, for tests and fuzzers of what reads requests: bytes are its tokens.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "checkpoint/model_chat.h"
#include "serve/form_cache.h"
#include "serve/model_info.h"
#include "serve/question_fields.h"
#include "text/bpe_trainer.h"

namespace ferry::serve {

/// The bytes, <|bos|>, with which texts begin, <|eos|> and <|pad|>.
inline ModelInfo byte_model(const std::string& chat_template) {
  text::BpeTrainerOptions options;
  options.vocab_size = 259;
  auto trainer = text::BpeTrainer::create(options);
  check(trainer.has_value(), "test: no tokenizer");
  auto tokenizer = text::Tokenizer::parse(trainer->train().json, "test");
  check(tokenizer.has_value(), "test: no tokenizer");
  ModelInfo m;
  m.directory = "bytes";
  m.texts.tokenizer = std::make_shared<text::Tokenizer>(*std::move(tokenizer));
  m.texts.bos = m.texts.tokenizer->token_id("<|bos|>");
  m.texts.begins = true;
  m.texts.eos = {m.texts.tokenizer->token_id("<|eos|>").value()};
  m.texts.files["chat_template.jinja"] = chat_template;
  m.syntax = answer_syntax(m.texts);
  m.vocabulary = grammar::Vocabulary::of(*m.texts.tokenizer, m.syntax.marks);
  check(m.vocabulary.has_value(), "test: the vocabulary cannot spell all");
  return m;
}

/// What a service reads requests with that serves it. Members refer to each other.
class ByteModelRules {
 public:
  explicit ByteModelRules(const std::string& chat_template) : model_(byte_model(chat_template)) {}
  ByteModelRules(const ByteModelRules&) = delete;
  ByteModelRules& operator=(const ByteModelRules&) = delete;

  const ModelInfo& model() const { return model_; }
  FormCache& forms() { return forms_; }
  ReadingRules rules() {
    return {.model = model_,
            .vocab_size = model_.texts.tokenizer->vocab_size(),
            .context = 4096,
            .names = names_,
            .sampling = sampling_,
            .forms = forms_};
  }

 private:
  ModelInfo model_;
  FormCache forms_;
  std::vector<std::string> names_ = {"bytes"};
  engine::SamplingOptions sampling_ = default_sampling(model_.texts);
};

}  // namespace ferry::serve
