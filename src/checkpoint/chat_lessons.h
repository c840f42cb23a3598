// What is learnt from a conversation: the assistant's messages, as the model will be asked to write
// them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/model_texts.h"
#include "text/lesson.h"

namespace ferry {

/// Each message of the assistant is learnt behind the very prompt that the chat template makes of
/// those before it, to the end token (which is added where the template writes none), whatever the
/// template does with it later on: R1's leaves thoughts out of past turns, and its lesson has them.
/// A turn whose prompt begins with the tokens of the lesson before it goes on with that lesson; any
/// other begins one of its own.
///
/// `conversation` as for render_chat (checkpoint/model_chat.h); other fields of the object are the
/// dataset's own and not looked at. Messages may have "reasoning_content" (or their content a
/// thought up to </think>) where the template has a place for it, and "weight": 0, which makes them
/// part of the prompt alone.
/// Errors: render_chat's; kInvalidInput for a conversation without a message to learn, and where the
/// template leaves out what a message says.
Result<std::vector<text::Lesson>> chat_lessons(const ModelTexts& texts,
                                               std::string_view conversation,
                                               const std::string& directory);

}  // namespace ferry
