// What is learnt from a conversation: the assistant's messages, as the model will be asked to write
// them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/calendar.h"
#include "base/result.h"
#include "checkpoint/model_texts.h"
#include "text/lesson.h"

namespace ferry {

/// Each message of the assistant is learnt behind the very prompt that the chat template makes of
/// those before it, to the end token (which is added where the template writes none), whatever the
/// template does with it later on: R1's leaves thoughts out of past turns, and its lesson has them.
/// A turn whose prompt begins with the text of the lesson before it goes on with that lesson; any
/// other begins one of its own.
///
/// `conversation` is an object as render_chat takes it (checkpoint/model_chat.h), with "system", the first message,
/// beside the messages or among them; fields beside these, tools and chat_template_kwargs are the dataset's own and
/// not looked at. Messages of the assistant have content (text, or parts of text, which are lines),
/// reasoning_content (or, in the content, a thought up to </think>), tool_calls, name and weight: 0 makes one part of
/// the prompt alone, 1 is usual. Null, an empty list and an empty object are absent; templates that cannot do without
/// content have "" in its place.
/// `now`: what templates that ask for the time are told.
/// Errors: render_chat's; kInvalidInput for a conversation without a message to learn, a message with
/// other fields, one that says nothing, one that holds the text of an end token, and where the template
/// leaves out what a message says or ends it by a token at which generation would not stop.
Result<std::vector<text::Lesson>> chat_lessons(const ModelTexts& texts,
                                               std::string_view conversation,
                                               const std::string& directory,
                                               const Moment& now);

}  // namespace ferry
