#include "cli/generate_command.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/open_model.h"
#include "engine/generate.h"
#include "text/stream_decoder.h"

namespace ferry::cli {
namespace {

struct Arguments {
  OpenOptions open;
  std::string prompt;
  engine::GenerateOptions generate;
  bool json = false, echo = true, specials = false;
};

Result<void> generate(Arguments& args) {
  TRY(engine::validate(args.generate.sampling));
  TRY_ASSIGN(const OpenedModel m, open_model(args.open));
  std::vector<int32_t> ids = {m.bos};
  m.tokenizer->encode(
      args.prompt,
      args.specials ? text::Tokenizer::Specials::kParse : text::Tokenizer::Specials::kAsText,
      ids);
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
             engine::generate(*m.model, ids, args.generate, [&](const engine::Sampled& s) {
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

void add_generate_command(CLI::App& app, int& status) {
  CLI::App* command = app.add_subcommand("generate", "Let a model continue a text");
  const auto args = std::make_shared<Arguments>();
  command->add_option("directory", args->open.directory, "a model directory")->required();
  command->add_option("--prompt", args->prompt, "the text to continue (empty: from nothing)");
  command->add_option("--tokens", args->generate.tokens_max, "at most so many new tokens")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  command
      ->add_option(
          "--temperature", args->generate.sampling.temperature, "0: always the most probable token")
      ->default_val(0.8);
  command
      ->add_option("--top-p",
                   args->generate.sampling.top_p,
                   "sample among the fewest tokens that reach this probability")
      ->default_val(0.95);
  command->add_option("--seed", args->generate.sampling.seed, "the same seed gives the same text")
      ->default_val(1);
  command->add_option("--device", args->open.device, "cpu, cuda[:N], ascend[:N]");
  command->add_option(
      "--dtype", args->open.dtype, "compute in bf16 (as trained by default) or f32");
  command->add_flag("!--no-echo", args->echo, "do not repeat the prompt");
  command->add_flag("--parse-specials",
                    args->specials,
                    "special tokens written in the prompt are control tokens");
  command->add_flag("--json", args->json, "end with one line of JSON");
  command->callback([args, &status] { status = report(generate(*args)); });
}

}  // namespace ferry::cli
