// Pairs of answers of which one is preferred: what a model learns from by the loss of preferences. A set of
// them is a file of JSON lines.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/calendar.h"
#include "base/result.h"
#include "checkpoint/model_texts.h"
#include "text/lesson.h"

namespace ferry {

/// Both answers as the model would be asked for them: chat_lessons of their conversations, in which the answer
/// alone is learnt. (Several where the chat template changes the past, checkpoint/chat_lessons.h.)
struct PreferencePair {
  std::vector<text::Lesson> chosen, rejected;
  size_t line = 0;  // of the file, from 1
};

/// Tokens that the model is run on for it.
int64_t tokens_of(const PreferencePair& pair);

struct PreferencePairs {
  std::vector<PreferencePair> pairs;
  std::vector<std::string> left_out;  // why, with the line
  bool dated = false;  // the chat template asks for the day: on another one they are others
};

struct PairReading {
  std::string directory;             // the model's, for messages
  int64_t tokens_max = 0;            // of an answer with its prompt
  int64_t bad_max = 0;               // lines that are left out, if they cannot be used
  Moment now = {};                   // what templates that ask for the time are told
  std::function<bool()> go_on = {};  // after each line; false: give up
};

/// The lines of a file, as TRL has them: {"prompt": [messages], "chosen": [messages], "rejected": [messages]}, or
/// without "prompt", or with a text there, where both are whole conversations, whose common beginning it is: two
/// messages are the same whatever the order of their fields is, and whether null or nothing stands in them. "tools" and
/// "chat_template_kwargs" are chat_lessons'; other fields are the dataset's own and not looked at. The first
/// message of an answer, and the last, are the assistant's, and the prompt's last is not.
/// Errors: data::read_text's; kInvalidInput with the line: not such a pair (texts instead of messages, nothing in
/// common, two answers that are the same tokens), chat_lessons', an answer that is too long with its prompt; a file
/// without pairs; kTimeout: go_on gave up.
Result<PreferencePairs> read_preference_pairs(const std::string& path,
                                              const ModelTexts& texts,
                                              const PairReading& reading);
/// The same of a file's text.
Result<PreferencePairs> parse_preference_pairs(std::string_view text,
                                               const std::string& path,
                                               const ModelTexts& texts,
                                               const PairReading& reading);

/// What a person is to know of pairs that are learnt from all the same: how many are there twice, say of both answers
/// that each is the better one, or are held out and learnt from; with the lines of the first of them.
std::vector<std::string> doubts_of(std::span<const PreferencePair> pairs,
                                   const std::string& path,
                                   std::span<const PreferencePair> held_out,
                                   const std::string& held_out_path);

}  // namespace ferry
