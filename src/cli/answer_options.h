// Options of the commands that let a model answer: how it chooses tokens, where it stops, what the
// engine may use.
#pragma once

#include <string>
#include <vector>

#include "cli/command_line.h"
#include "engine/engine.h"

namespace ferry::cli {

struct AnswerOptions {
  engine::GenerateOptions generate;
  std::vector<std::string> stop;  // strings that end an answer, and are no part of it
  int64_t drafts = 0;
  int64_t cache_tokens = 0;  // 0: as many as are useful and memory allows
};

/// --tokens, --temperature, --top-p, --top-k, --min-p, the penalties, --stop, --seed and
/// add_engine_options'. Their defaults are what `options` holds.
void add_answer_options(Command& command, AnswerOptions& options);
/// --draft and --cache-tokens.
void add_engine_options(Command& command, AnswerOptions& options);

/// Numbers out of range. Errors: kInvalidInput.
Result<void> check_answer_options(const AnswerOptions& options);

/// For `running` requests at once of at most `tokens_each` tokens, prompt and answer; 0: as long as
/// the model's positions. Without --cache-tokens the cache takes at most a quarter of the memory
/// that is free, but never less than one request of `tokens_each` needs.
engine::EngineOptions engine_options(const AnswerOptions& options,
                                     const models::CausalLm& model,
                                     int64_t running,
                                     int64_t tokens_each);

/// Whether the engine's cache fits into the memory that is free. Errors: kExhausted, saying what to
/// ask for.
Result<void> require_cache(const engine::Engine& engine, const models::CausalLm& model);

/// "end", "length", "context": what a finished answer is called in JSON.
const char* to_string(engine::Finish finish);

}  // namespace ferry::cli
