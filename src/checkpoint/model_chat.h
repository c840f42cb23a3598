// A conversation as the text that a model was trained on: its own chat template, found where model
// directories keep one, and the tokens of that text.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/calendar.h"
#include "base/result.h"
#include "checkpoint/model_texts.h"
#include "text/answer_parser.h"

namespace ferry {

struct ChatPrompt {
  std::string text;
  std::vector<int32_t> ids;
};

/// Renders `conversation`, JSON as clients of chat servers write it: a list of messages, or an object
/// with "messages" and, optionally, "tools" (also as JSON in a text), "add_generation_prompt" (true) and
/// "chat_template_kwargs". The template is chat_template.jinja, else chat_template.json's, else
/// tokenizer_config.json's; for a conversation with tools, the one named "tool_use" comes first
/// (additional_chat_templates/tool_use.jinja, or one of several in a .json). `path` is the
/// conversation's, for messages; `directory` the model's.
/// Errors: kNotFound: the directory has no template; kCorrupt, kInvalidInput: the conversation is
/// not one, the template refuses it or cannot be run, or a text that the
/// model did not write (in messages, tools, kwargs, their keys) holds that of a control token, which it would become.
/// `now`: the time that a template which asks for it is told.
Result<ChatPrompt> render_chat(const ModelTexts& texts,
                               std::string_view conversation,
                               const std::string& path,
                               const std::string& directory,
                               const Moment& now = Moment::now());

/// Its two halves, for who chooses between several ways to write a conversation before any text becomes tokens, which
/// takes far longer than writing them. chat_text: the text, of a conversation whose texts nobody checked: none of it
/// may become tokens before check_chat, with the same arguments, has passed. Errors: render_chat's. `place`: where the
/// text that is refused stands, "messages[0].content". The conversation is what a text of it was read as.
Result<std::string> chat_text(const ModelTexts& texts,
                              const nlohmann::ordered_json& conversation,
                              const std::string& path,
                              const std::string& directory);
Result<void> check_chat(const ModelTexts& texts,
                        const nlohmann::ordered_json& conversation,
                        const std::string& path,
                        std::string* place = nullptr);

/// Whether messages without content must be given "": some templates tell a message that only calls tools by its null,
/// some add content to text as it is, and refuse null, or write the word None for it, which nobody said. The texts of
/// one conversation with null and with "", or their refusals.
bool needs_content(const Result<std::string>& with_null, const Result<std::string>& with_text);

/// Refuses valid JSON with a whole number beyond 63 bits, of which a template would write other digits than Python
/// does.
/// Errors: kInvalidInput, naming `path` and the number.
Result<void> check_whole_numbers(std::string_view json, const std::string& path);
/// The same of JSON that was read.
Result<void> check_numbers(const nlohmann::ordered_json& json, const std::string& path);

/// Refuses a text that holds that of a control token, which it would become within a prompt. `where`:
/// what it is, for the message. Errors: kInvalidInput.
Result<void> check_chat_text(const ModelTexts& texts,
                             std::string_view text,
                             const std::string& where);

/// The templates that a conversation may be written by, without tools and with. Errors: kNotFound: the directory has
/// none.
Result<std::string> chat_templates_of(const ModelTexts& texts, const std::string& directory);

/// To tell whether two models write alike: a hash of these templates and of those special tokens which they name and
/// which are others than the ids of begin and end say. Errors: chat_templates_of's.
Result<std::string> chat_fingerprint(const ModelTexts& texts, const std::string& directory);
/// The same of the templates alone, whatever tokens they are given.
Result<std::string> chat_templates_fingerprint(const ModelTexts& texts,
                                               const std::string& directory);

/// Where a fingerprint of the templates alone was written, they were given the begin and the end token by their ids:
/// which of the tokens that they name are others now, "bos_token '<s>' then, none now"; empty: none.
std::string tokens_given_otherwise(const ModelTexts& texts, const std::string& templates);

/// From now on the texts' template, for every conversation, is this one.
void use_chat_template(ModelTexts& texts, std::string source);

/// How the model marks thoughts and calls in its answers, as its chat template shows. One without a
/// template calls nothing. `texts` has a tokenizer.
text::AnswerSyntax answer_syntax(const ModelTexts& texts);

}  // namespace ferry
