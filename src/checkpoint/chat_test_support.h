// What a model that chats says about text, for tests: a small tokenizer, and a template.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "checkpoint/model_texts.h"

namespace ferry {

inline constexpr const char* kChatml =
    "{% for m in messages %}{{ '<|bos|>' + m.role + '\n' + (m.content or '') + '<|eos|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|bos|>assistant\n' }}{% endif %}";

/// An empty template: none.
inline ModelTexts chat_texts(const std::string& chat_template) {
  ModelTexts t;
  auto tokenizer = text::Tokenizer::load(FERRY_SOURCE_DIR "/testdata/tokenizer/qwen2.json");
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  t.tokenizer = std::make_shared<text::Tokenizer>(*std::move(tokenizer));
  t.eos = {*t.tokenizer->token_id("<|eos|>")};
  if (!chat_template.empty()) t.files["chat_template.jinja"] = chat_template;
  return t;
}

}  // namespace ferry
