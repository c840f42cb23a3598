#include "cli/generate_command.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "checkpoint/model_chat.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/text_options.h"
#include "text/stream_decoder.h"

namespace ferry::cli {
namespace {

constexpr uint64_t kPromptBytesMax = uint64_t{64} << 20;

struct Arguments {
  OpenOptions open;
  std::string prompt, file, chat;
  data::TextOptions text;
  engine::GenerateOptions generate;
  bool json = false, echo = true, specials = false;
};

Result<void> generate(Arguments& args) {
  TRY(engine::validate(args.generate.sampling));
  if (!args.file.empty()) {
    if (!args.prompt.empty() || !args.chat.empty())
      return fail(Code::kInvalidInput,
                  "generate: give one of --prompt TEXT, --file FILE, --chat FILE");
    TRY_ASSIGN(args.prompt, data::read_text(args.file, args.text, kPromptBytesMax));
  }
  if (!args.chat.empty() && !args.prompt.empty())
    return fail(Code::kInvalidInput,
                "generate: give one of --prompt TEXT, --file FILE, --chat FILE");
  TRY_ASSIGN(const OpenedModel m, open_model(args.open));
  std::vector<int32_t> ids;
  if (!args.chat.empty()) {
    TRY_ASSIGN(const std::string conversation, read_file(args.chat, kPromptBytesMax));
    TRY_ASSIGN(ChatPrompt chat, render_chat(m.texts, conversation, args.chat, args.open.directory));
    args.prompt = std::move(chat.text);
    ids = std::move(chat.ids);
  } else {
    if (m.texts.begins) ids.push_back(*m.texts.bos);
    m.tokenizer->encode(
        args.prompt,
        args.specials ? text::Tokenizer::Specials::kParse : text::Tokenizer::Specials::kAsText,
        ids);
  }
  if (ids.empty()) {
    TRY_ASSIGN(const int32_t first, m.texts.context_of_first(args.open.directory));
    ids.push_back(first);
  }
  args.generate.end_tokens = m.texts.eos;
  text::StreamDecoder decoder(*m.tokenizer, true);
  std::string text;
  const auto show = [&](const std::string& piece) {
    text += piece;
    fmt::print("{}", piece);
    std::fflush(stdout);
  };
  // Not before the prompt is known to fit: a refusal should be all that is printed.
  auto echo = [&, done = false]() mutable {
    if (args.echo && !std::exchange(done, true)) fmt::print("{}", args.prompt);
  };
  const double begin = system_clock().monotonic_s();
  TRY_ASSIGN(const std::vector<int32_t> out,
             engine::Session(*m.model).generate(ids, args.generate, [&](const engine::Sampled& s) {
               echo();
               show(decoder.push(s.token));
               return true;
             }));
  echo();
  show(decoder.flush());
  const double seconds = system_clock().monotonic_s() - begin;
  fmt::print("\n");
  if (!args.json) return {};
  const nlohmann::ordered_json j = {{"text", text},
                                    {"prompt_tokens", ids.size()},
                                    {"tokens", out.size()},
                                    {"seconds", seconds},
                                    {"tokens_per_s", static_cast<double>(out.size()) / seconds}};
  return print_json(j);
}

}  // namespace

void add_generate_command(Command& program) {
  Command command = program.add("generate", "Let a model continue a text");
  const auto args = std::make_shared<Arguments>();
  args->generate.sampling = {.temperature = 0.8, .top_p = 0.95, .seed = 1};
  add_open_options(command, args->open);
  command.option("--prompt", args->prompt, "the text to continue (empty: from nothing)");
  command.option("--file", args->file, "a file with the text to continue");
  add_as_text_option(command, args->text);
  command.option(
      "--chat",
      args->chat,
      "a JSON file with a conversation (messages, tools): the model's chat template makes "
      "the text of it");
  add_generate_options(command, args->generate);
  command.flag("!--no-echo", args->echo, "do not repeat the prompt");
  command.flag("--parse-specials",
               args->specials,
               "special tokens written in the prompt are control tokens");
  command.flag("--json", args->json, "end with one line of JSON");
  command.runs([args] { return report(generate(*args)); });
}

}  // namespace ferry::cli
