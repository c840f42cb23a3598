// Fuzzer of conversations: a template, a zero byte, and messages in JSON. The template runs within its
// limits on what the messages are; the messages, through a template that is ours, become control
// tokens nowhere but where the template has them.
#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "checkpoint/model_chat.h"
#include "text/bpe_trainer.h"
#include "text/chat_template.h"

namespace {

using namespace ferry;

constexpr size_t kTextBytesMax = size_t{1} << 20;

ModelTexts model() {
  text::BpeTrainerOptions options;
  options.vocab_size = 259;
  auto trainer = text::BpeTrainer::create(options);
  check(trainer.has_value(), "fuzz: no tokenizer");
  auto tokenizer = text::Tokenizer::parse(trainer->train().json, "fuzz");
  check(tokenizer.has_value(), "fuzz: no tokenizer");
  ModelTexts texts;
  texts.tokenizer = std::make_shared<text::Tokenizer>(*std::move(tokenizer));
  texts.files["chat_template.jinja"] =
      "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.content }}<|eos|>{% endfor %}";
  return texts;
}

void run_template(std::string_view source, std::string_view conversation) {
  const Result<text::ChatTemplate> parsed = text::ChatTemplate::parse(source, "fuzz");
  if (!parsed) {
    check(parsed.error().message.starts_with("fuzz: line "), "fuzz: {}", parsed.error().message);
    return;
  }
  nlohmann::ordered_json context = {{"messages", nlohmann::ordered_json::array()}};
  if (parse_json(conversation, "fuzz"))
    context["messages"] = nlohmann::ordered_json::parse(conversation);
  const auto render = [&] {
    return parsed->render(context,
                          [](const std::string& format) { return format; },
                          {.steps = 100'000, .text_bytes = kTextBytesMax, .list_items = 100'000});
  };
  const Result<std::string> text = render(), again = render();
  check(text.has_value() == again.has_value(), "fuzz: rendered once, refused once");
  if (!text) {
    check(text.error().message.starts_with("fuzz: line "), "fuzz: {}", text.error().message);
    return;
  }
  check(*text == *again, "fuzz: rendered differently");
  check(text->size() <= kTextBytesMax, "fuzz: {} bytes", text->size());
}

void render_messages(std::string_view conversation) {
  static const ModelTexts texts = model();
  const Result<ChatPrompt> prompt = render_chat(texts, conversation, "fuzz", "model");
  if (!prompt) {
    check(!prompt.error().message.empty(), "fuzz: refused without a word");
    return;
  }
  const nlohmann::json json = nlohmann::json::parse(conversation);
  const nlohmann::json& messages = json.is_object() ? json.at("messages") : json;
  for (const nlohmann::json& m : messages)
    if (m.at("role") == "assistant") return;  // its own words may hold its tokens
  for (const char* token : {"<|bos|>", "<|eos|>", "<|pad|>"}) {
    const auto count = std::count(
        prompt->ids.begin(), prompt->ids.end(), texts.tokenizer->token_id(token).value());
    const size_t wanted = std::string_view(token) == "<|pad|>" ? 0 : messages.size();
    check(static_cast<size_t>(count) == wanted, "fuzz: {} of {} {}", count, wanted, token);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = std::min(input.find('\0'), size);
  const std::string_view conversation = input.substr(std::min(zero + 1, size));
  run_template(input.substr(0, zero), conversation);
  render_messages(conversation);
  return 0;
}
