#include "cli/answer_options.h"

#include <algorithm>

#include "device/require_memory.h"

namespace ferry::cli {
namespace {

constexpr int64_t kTokensPerPass = 512;

}  // namespace

void add_answer_options(Command& command, AnswerOptions& options) {
  engine::SamplingOptions& s = options.generate.sampling;
  command.option("--tokens", options.generate.tokens_max, "at most so many new tokens")
      .within(int64_t{1}, int64_t{1} << 24)
      .shows_default();
  command.option("--temperature", s.temperature, "0: always the most probable token")
      .shows_default();
  command.option("--top-p", s.top_p, "sample among the fewest tokens that reach this probability")
      .shows_default();
  command.option("--top-k", s.top_k, "sample among so many of the most probable; 0: all")
      .shows_default();
  command
      .option("--min-p", s.min_p, "sample among those at least so probable, as a share of the best")
      .shows_default();
  command.option("--repetition-penalty", s.repetition_penalty, "above 1: tokens seen become rarer")
      .shows_default();
  command
      .option("--presence-penalty", s.presence_penalty, "taken from the logits of tokens answered")
      .shows_default();
  command
      .option(
          "--frequency-penalty", s.frequency_penalty, "the same, as often as they were answered")
      .shows_default();
  command.option("--stop", options.stop, "text that ends the answer; may be given several times")
      .any_text()
      .once_per_value();
  command.option("--seed", s.seed, "the same seed gives the same text").shows_default();
  add_engine_options(command, options);
}

void add_engine_options(Command& command, AnswerOptions& options) {
  command
      .option("--draft",
              options.drafts,
              "guess up to so many tokens ahead, by the model's MTP modules and from the text "
              "itself: often faster, and never another answer")
      .within(int64_t{0}, int64_t{32})
      .shows_default();
  command
      .option("--cache-tokens",
              options.cache_tokens,
              "tokens that the cache has room for; 0: what is useful, in a quarter of free memory")
      .within(int64_t{0}, int64_t{1} << 30);
}

Result<void> check_answer_options(const AnswerOptions& options) {
  return engine::validate(options.generate.sampling);
}

engine::EngineOptions engine_options(const AnswerOptions& options,
                                     const models::CausalLm& model,
                                     int64_t running,
                                     int64_t tokens_each) {
  const int64_t positions = model.max_positions();
  const int64_t each = tokens_each > 0 ? std::min(tokens_each, positions) : positions;
  int64_t tokens = options.cache_tokens;
  if (tokens == 0) {
    const auto free = static_cast<double>(memory_available(model.device()).bytes);
    const auto fits = static_cast<int64_t>(
        free / 4 /
        static_cast<double>(model.cache_bytes_per_token(options.drafts > 0 && model.has_mtp())));
    const int64_t least = tokens_each > 0 ? each : std::min<int64_t>(positions, 4096);
    // Pages are whole, and each request may have its own last one.
    tokens = std::max(least, std::min(running * (each + models::kPageTokens), fits));
  }
  return {.cache_tokens = tokens,
          .running = running,
          .tokens_per_pass = std::max(kTokensPerPass, running + 1),
          .drafts = options.drafts};
}

Result<void> require_cache(const engine::Engine& engine, const models::CausalLm& model) {
  return require_memory(model.device(),
                        static_cast<double>(engine.memory_bytes()),
                        "the cache's pages and the table of positions",
                        "ask for fewer --tokens or --cache-tokens");
}

const char* to_string(engine::Finish finish) {
  switch (finish) {
    case engine::Finish::kNone: return "none";
    case engine::Finish::kEnd: return "end";
    case engine::Finish::kLength: return "length";
    case engine::Finish::kContext: return "context";
    case engine::Finish::kFailed: return "failed";
  }
  return "";
}

}  // namespace ferry::cli
