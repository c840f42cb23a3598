#include "cli/generate_command.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/input_file.h"
#include "checkpoint/model_chat.h"
#include "cli/answer_options.h"
#include "cli/command.h"
#include "cli/generate_batch.h"
#include "cli/given_template.h"
#include "cli/model_options.h"
#include "cli/text_options.h"
#include "engine/generate.h"
#include "grammar/answer_form.h"
#include "text/answer_text.h"

namespace ferry::cli {
namespace {

constexpr uint64_t kPromptBytesMax = uint64_t{64} << 20, kSchemaBytesMax = uint64_t{1} << 20;
const data::TextOptions kJson = {.json = true};

struct Arguments {
  OpenOptions open;
  std::string prompt, file, chat;
  GivenTemplate chat_template;
  data::SourceOptions source;  // how the file is read
  AnswerOptions answer;
  BatchFiles batch;
  int64_t prompt_log_probs = -1;
  std::string schema;
  bool object = false;
  bool json = false, echo = true, specials = false;
};

bool has_form(const Arguments& args) { return args.object || !args.schema.empty(); }

/// What --json-schema or --json-object holds the answer to: behind its thought, where the model is
/// asked as one that thinks.
Result<std::shared_ptr<const grammar::Constraint>> constraint(const Arguments& args,
                                                              const OpenedModel& m) {
  using grammar::AnswerForm;
  if (args.object && !args.schema.empty())
    return fail(Code::kInvalidInput, "generate: give one of --json-schema and --json-object");
  const text::AnswerSyntax syntax = answer_syntax(m.texts);
  AnswerForm form{.kind = AnswerForm::Kind::kObject};
  if (!args.schema.empty()) {
    form.kind = AnswerForm::Kind::kSchema;
    TRY_ASSIGN(form.schema, data::read_text(args.schema, kJson, kSchemaBytesMax));
  }
  if (!args.chat.empty() && syntax.thinks)
    form.thought = text::begins_thinking(syntax, args.prompt) ? AnswerForm::Thought::kBegun
                                                              : AnswerForm::Thought::kMay;
  auto out = std::make_shared<grammar::Constraint>();
  TRY_ASSIGN(out->automaton, grammar::answer_automaton(form));
  TRY_ASSIGN(out->vocabulary, grammar::Vocabulary::of(*m.tokenizer, syntax.marks));
  return std::shared_ptr<const grammar::Constraint>(std::move(out));
}

/// The text of a file; of JSON lines, of which it must have one, its field.
Result<std::string> prompt_of_file(const Arguments& args) {
  TRY_ASSIGN(data::DocumentReader reader, data::DocumentReader::open(args.file, args.source));
  std::optional<std::string> prompt;
  TRY(data::each_document(reader, kPromptBytesMax, [&](std::string_view text) -> Result<bool> {
    if (text.size() >= kPromptBytesMax)
      return fail(Code::kInvalidInput,
                  "{}: holds more than the {} bytes that a prompt may have",
                  args.file,
                  kPromptBytesMax);
    if (prompt)
      return fail(
          Code::kInvalidInput,
          "{}: is JSON lines with several texts, and --file gives one; --batch answers each "
          "line, --as-text takes the JSON itself for the text",
          args.file);
    prompt = text;
    return true;
  }));
  tell_damage(args.file, reader.damage());
  return prompt.value_or("");
}

Result<void> batch(const Arguments& args) {
  if (has_form(args))
    return fail(Code::kInvalidInput,
                "generate: --json-schema and --json-object are for one answer, not for --batch");
  if (!args.prompt.empty() || !args.file.empty() || !args.chat.empty())
    return fail(Code::kInvalidInput, "generate: --batch has the prompts; leave out the other");
  if (args.batch.out.empty())
    return fail(Code::kInvalidInput, "generate: --batch needs --out FILE for the answers");
  if (args.batch.out == "-")
    return fail(Code::kInvalidInput,
                "generate: --out -: answers go to a file, which the same command goes on with when "
                "it is stopped; name one");
  TRY_ASSIGN(OpenedModel m, open_model(args.open));
  use_template(args.chat_template, m.texts);
  return generate_batch(m, args.open, args.answer, args.batch);
}

/// What the model thinks of the prompt itself: of its first token nothing.
void add_prompt_log_probs(std::span<const int32_t> ids,
                          const std::vector<engine::Token>& tokens,
                          nlohmann::ordered_json& j) {
  nlohmann::ordered_json log_probs = {nullptr}, top = {nullptr};
  for (const engine::Token& t : tokens) {
    log_probs.push_back(t.log_prob);
    top.push_back(t.top);
  }
  j["prompt_ids"] = ids;
  j["prompt_log_probs"] = std::move(log_probs);
  j["prompt_top"] = std::move(top);
}

Result<void> generate(Arguments& args) {
  TRY(check_answer_options(args.answer));
  if (!args.batch.in.empty() && args.prompt_log_probs >= 0)
    return fail(Code::kInvalidInput, "generate: --prompt-log-probs is for one prompt, not --batch");
  if (args.chat_template.given() && args.chat.empty() && args.batch.in.empty())
    return fail(Code::kInvalidInput,
                "generate: --chat-template is for conversations (--chat FILE, --batch FILE)");
  TRY(read_template(args.chat_template));
  args.batch.own_template = !args.chat_template.given();
  if (!args.batch.in.empty()) return batch(args);
  if (!args.file.empty()) {
    if (!args.prompt.empty() || !args.chat.empty())
      return fail(Code::kInvalidInput,
                  "generate: give one of --prompt TEXT, --file FILE, --chat FILE");
    TRY_ASSIGN(args.prompt, prompt_of_file(args));
  }
  if (args.file.empty() && args.prompt.empty() && args.chat.empty() &&
      InputFile::standard_input_has_text())
    tell("ferry: note: nothing is read from standard input; --file - takes the text from there");
  if (!args.chat.empty() && !args.prompt.empty())
    return fail(Code::kInvalidInput,
                "generate: give one of --prompt TEXT, --file FILE, --chat FILE");
  TRY_ASSIGN(OpenedModel m, open_model(args.open));
  use_template(args.chat_template, m.texts);
  std::vector<int32_t> ids;
  if (!args.chat.empty()) {
    TRY_ASSIGN(const std::string conversation, data::read_text(args.chat, kJson, kPromptBytesMax));
    TRY_ASSIGN(ChatPrompt chat, chat_prompt(m.texts, conversation, args.chat, args.open.directory));
    args.prompt = std::move(chat.text);
    ids = std::move(chat.ids);
  } else {
    TRY_ASSIGN(ids,
               m.texts.prompt(args.prompt,
                              args.specials ? text::Tokenizer::Specials::kParse
                                            : text::Tokenizer::Specials::kAsText,
                              args.open.directory));
  }
  args.answer.generate.end_tokens = m.texts.eos;
  if (args.prompt_log_probs >= 0) args.answer.generate.prompt_top_log_probs = args.prompt_log_probs;
  if (has_form(args)) {
    TRY_ASSIGN(args.answer.generate.constraint, constraint(args, m));
  }
  const int64_t asked = std::ssize(ids) + args.answer.generate.tokens_max;
  engine::Engine engine(*m.model, engine_options(args.answer, *m.model, 1, asked));
  TRY(require_cache(engine, *m.model));
  text::AnswerText pieces(*m.tokenizer, args.answer.stop);
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
  TRY_ASSIGN(const engine::Generated out,
             engine::generate(engine,
                              {.prompt = ids, .options = args.answer.generate, .salt = ""},
                              [&](const engine::Token& t) {
                                echo();
                                show(pieces.push(t.id));
                                return !pieces.stopped();
                              }));
  echo();
  show(pieces.flush());
  const double seconds = system_clock().monotonic_s() - begin;
  fmt::print("\n");
  if (out.finish == engine::Finish::kContext && !pieces.stopped())
    tell(fmt::format("ferry: note: the answer ends where the model's {} positions do",
                     m.model->max_positions()));
  if (has_form(args) && out.finish != engine::Finish::kEnd)
    tell("ferry: note: the answer was cut off before its JSON was complete; ask for more --tokens");
  if (!args.json) return {};
  nlohmann::ordered_json j = {{"text", text},
                              {"prompt_tokens", ids.size()},
                              {"tokens", out.tokens.size()},
                              {"finish", pieces.stopped() ? "stop" : to_string(out.finish)},
                              {"seconds", seconds},
                              {"tokens_per_s", static_cast<double>(out.tokens.size()) / seconds}};
  if (args.prompt_log_probs >= 0) add_prompt_log_probs(ids, out.prompt, j);
  if (args.answer.drafts > 0) {
    j["drafted"] = engine.counts().drafted;
    j["accepted"] = engine.counts().accepted;
  }
  return print_json(j);
}

}  // namespace

void add_generate_command(Command& program) {
  Command command = program.add("generate", "Let a model continue a text");
  const auto args = std::make_shared<Arguments>();
  args->answer.generate.sampling = {.temperature = 0.8, .top_p = 0.95, .seed = 1};
  add_open_options(command, args->open);
  command.option("--prompt", args->prompt, "the text to continue (empty: from nothing)").any_text();
  command.option(
      "--file", args->file, "a file with the text to continue, or one line of JSON that holds it");
  add_as_text_option(command, args->source.text);
  add_field_option(command, args->source);
  command.option(
      "--chat",
      args->chat,
      "a JSON file with a conversation (messages, tools): the model's chat template makes "
      "the text of it");
  add_template_option(command, args->chat_template);
  add_answer_options(command, args->answer);
  command.option(
      "--batch",
      args->batch.in,
      "a file with a request in each line: {\"prompt\": TEXT} or {\"messages\": [..]}, and "
      "settings; see docs/generating.md");
  command.option("--out",
                 args->batch.out,
                 "where the answers of --batch go; a file that is there "
                 "already is gone on with");
  command.option("--running", args->batch.running, "requests of --batch that are answered at once")
      .within(int64_t{1}, int64_t{256})
      .shows_default();
  command.option("--json-schema",
                 args->schema,
                 "a file with a JSON schema: the answer is a document that satisfies it");
  command.flag("--json-object", args->object, "the answer is a JSON object");
  command.flag("!--no-echo", args->echo, "do not repeat the prompt");
  command.flag("--parse-specials",
               args->specials,
               "special tokens written in the prompt are control tokens");
  const Option json = command.flag("--json", args->json, "end with one line of JSON");
  command
      .option("--prompt-log-probs",
              args->prompt_log_probs,
              "the prompt's tokens and their log-probabilities in the JSON, each beside so many of "
              "the most probable ones")
      .within(0, 64)
      .needs(json);
  command.runs([args] { return report(generate(*args)); });
}

}  // namespace ferry::cli
