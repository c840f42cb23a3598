// A conversation that has been checked once and can be written, by its model's chat template, as far
// as anybody wants.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/calendar.h"
#include "base/result.h"
#include "checkpoint/model_texts.h"

namespace ferry {

/// use_chat_template of a template in a file that is not the model's; messages call it so.
void use_chat_template_of(ModelTexts& texts, std::string source, const std::string& file);

class ChatRenderer {
 public:
  /// Whether any conversation can be written: there is a template, and it, and the one for conversations
  /// with tools, is one that the interpreter runs. Errors: kNotFound, kInvalidInput, with its file and line.
  static Result<void> check(const ModelTexts& texts, const std::string& directory);
  /// Arguments and errors: render_chat's (checkpoint/model_chat.h). `now`: the time that templates
  /// which ask for it are told. `texts` must outlive it.
  static Result<ChatRenderer> make(const ModelTexts& texts,
                                   std::string_view conversation,
                                   const std::string& path,
                                   const std::string& directory,
                                   const Moment& now);
  /// The same of a conversation that was read, but for control tokens' texts nobody looks: see chat_text.
  static Result<ChatRenderer> unchecked(const ModelTexts& texts,
                                        nlohmann::ordered_json conversation,
                                        const std::string& path,
                                        const std::string& directory,
                                        const Moment& now);
  ChatRenderer(ChatRenderer&&) noexcept;
  ChatRenderer& operator=(ChatRenderer&&) noexcept;
  ~ChatRenderer();

  /// Refuses a conversation that a table padded with nulls (checkpoint/chat_padding.h), of which a model that learns it
  /// would learn to write them; in one that is to be answered they are what was said. Errors: kInvalidInput.
  Result<void> check_not_padded(const std::string& path) const;
  size_t messages() const;
  bool generation_prompt() const;  // what the conversation asks for
  /// The text of the first `messages`. Errors: kInvalidInput where the template refuses them.
  Result<std::string> text(size_t messages, bool generation_prompt) const;

 private:
  struct State;
  explicit ChatRenderer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ferry
