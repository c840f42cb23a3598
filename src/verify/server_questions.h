// What a server is asked: texts that tokenizers disagree about, the passport's probes, long texts,
// conversations; and how servers misread conversations.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "verify/server_reference.h"

namespace ferry::verify {

struct TextQuestion {
  std::string what;          // for people; no two are called alike
  std::string text;          // empty: there is no text with these ids
  std::vector<int32_t> ids;  // as the model should see it
  std::string messages =
      {};  // JSON; not empty: it is asked as this conversation, which becomes `text`
};

/// Those that fit the model's positions, with room for an answer.
std::vector<TextQuestion> text_questions(const Reference& reference);

/// A text of at most `tokens` tokens, and not many fewer, that no other length's text begins like. With
/// `other_ending`: the same text but for its last sentence, which is another.
TextQuestion long_question(const Reference& reference, int64_t tokens, bool other_ending = false);

/// A conversation as a question. Errors: of render_chat (a model without a template, or one that
/// refuses a message).
Result<TextQuestion> conversation_question(const Reference& reference,
                                           const std::string& what,
                                           const std::string& messages);

/// A long text as what a user says: of about `tokens` tokens in all. Errors: of render_chat.
Result<TextQuestion> long_conversation(const Reference& reference,
                                       int64_t tokens,
                                       bool other_ending = false);

struct Conversation {
  const char* what;
  const char* messages;  // JSON
};
extern const std::vector<Conversation> kConversations;

/// A template that is not the model's.
struct OtherTemplate {
  const char* words;
  const char* jinja;  // empty: the model's own, without what asks for an answer
};
extern const std::vector<OtherTemplate> kOtherTemplates;

/// The tokens of the conversation `what` by that template; empty where it cannot be rendered.
std::vector<int32_t> chat_otherwise(const Reference& reference,
                                    const OtherTemplate& other,
                                    const std::string& what);

}  // namespace ferry::verify
