// --chat-template of the commands that answer conversations: a template in a file, in place of the model's own.
#pragma once

#include <string>

#include "base/result.h"
#include "checkpoint/model_chat.h"
#include "cli/command_line.h"

namespace ferry::cli {

struct GivenTemplate {
  std::string path;    // empty: none was given
  std::string source;  // what it holds, once it is read
  bool given() const { return !path.empty(); }
};

/// --chat-template.
void add_template_option(Command& command, GivenTemplate& given);

/// Reads it, where one was given: before a model is, so that a bad one ends the command at once.
/// Errors: those of files; kInvalidInput, with its line: the interpreter does not run it.
Result<void> read_template(GivenTemplate& given);

/// From now on it is the template of these texts, where one was given.
void use_template(const GivenTemplate& given, ModelTexts& texts);

/// render_chat of a model opened by a command that has the option; a model without a template is told of it.
Result<ChatPrompt> chat_prompt(const ModelTexts& texts,
                               std::string_view conversation,
                               const std::string& path,
                               const std::string& directory);

}  // namespace ferry::cli
