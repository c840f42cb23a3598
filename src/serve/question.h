// What a client asks to have answered, whichever API it speaks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace ferry::serve {

struct Prompt {
  std::vector<int32_t> ids;
  std::string text = {};       // of completions, for who wants it repeated
  bool as_text = false;        // that is how it was given: control tokens' texts are part of it,
  bool begun = false;          // and its first id, which the text does not have, was put before
  bool thinking = false;       // the answer begins within a thought,
  bool thought_begun = false;  // of which more than its mark is in the prompt
};

struct Question {
  std::string model;  // the name under which it was asked
  std::vector<Prompt> prompts;
  int64_t choices = 1;  // answers to each
  engine::GenerateOptions options;
  bool seeded = false;  // the request names the seed: then equal prompts are answered alike
  std::vector<std::string> stop;
  std::string salt;                // of the cache, as the request has it
  bool chat = false;               // answers are read as thoughts, content and calls
  std::vector<std::string> tools;  // names of those that may be called
  bool one_call = false;           // an answer ends with its first call
  bool only_calls = false;         // there is no answer but calls
  bool stream = false;
  bool usage_in_stream = false;
  bool echo = false;           // a text's completion begins with it
  bool no_answer = false;      // only what is told of the prompt is wanted
  bool token_ids = false;      // they are wanted
  bool ids_for_texts = false;  // "token_id:17" in place of tokens' texts
  bool timings = false;
  std::string repeated;  // JSON: fields of the request that its answer repeats (Responses)

  int64_t answers() const { return std::ssize(prompts) * choices; }
};

}  // namespace ferry::serve
