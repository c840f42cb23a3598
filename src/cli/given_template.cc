#include "cli/given_template.h"

#include <filesystem>

#include "base/input_file.h"
#include "checkpoint/chat_renderer.h"
#include "text/chat_template.h"

namespace ferry::cli {
namespace {

constexpr uint64_t kBytesMax = uint64_t{4} << 20;

}  // namespace

void add_template_option(Command& command, GivenTemplate& given) {
  command.option("--chat-template",
                 given.path,
                 "a file with the chat template (Jinja) to use instead of the model's own");
}

Result<void> read_template(GivenTemplate& given) {
  if (!given.given()) return {};
  TRY_ASSIGN(given.source, read_input(given.path, kBytesMax));
  TRY(text::ChatTemplate::parse(given.source, given.path));
  return {};
}

void use_template(const GivenTemplate& given, ModelTexts& texts) {
  if (!given.given()) return;
  use_chat_template_of(texts, given.source, std::filesystem::path(given.path).filename().string());
}

Result<ChatPrompt> chat_prompt(const ModelTexts& texts,
                               std::string_view conversation,
                               const std::string& path,
                               const std::string& directory) {
  Result<ChatPrompt> prompt = render_chat(texts, conversation, path, directory);
  if (prompt) return prompt;
  // Where it fails whatever the conversation: there is none, or none that can be run. What is wrong with a conversation
  // no other template mends.
  const Result<void> usable = ChatRenderer::check(texts, directory);
  if (usable || usable.error().message != prompt.error().message) return prompt;
  return fail(prompt.error().code, "{}; --chat-template FILE gives it one", prompt.error().message);
}

}  // namespace ferry::cli
