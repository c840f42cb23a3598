// A model's chat template: what turns a conversation into the text that the model was trained on.
// It is Jinja2 as Transformers runs it (trim_blocks, lstrip_blocks, loop controls, its tojson,
// raise_exception and strftime_now), in an interpreter of our own that cannot reach anything.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/jinja/interpreter.h"

namespace ferry::text {

/// Immutable; may be rendered from several threads at once.
class ChatTemplate {
 public:
  /// Errors: kInvalidInput with `path` and line, for what the interpreter does not run.
  static Result<ChatTemplate> parse(std::string_view source, const std::string& path);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  /// The text for `context`, an object of the template's variables: messages, tools (null without),
  /// add_generation_prompt, bos_token, ... As Jinja, the same text as jinja2 gives, or an error.
  /// `now` gives the present time in a format of strftime. Errors: kInvalidInput, with path and
  /// line: the template refuses the conversation, goes wrong on it, or goes beyond the limits.
  Result<std::string> render(const nlohmann::ordered_json& context,
                             const std::function<std::string(const std::string&)>& now,
                             const jinja::Limits& limits = {}) const;

 private:
  ChatTemplate();
  std::string path_;
  std::unique_ptr<const jinja::Node> root_;
};

}  // namespace ferry::text
