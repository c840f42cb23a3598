// Many prompts from a file of JSON lines, answered together; a run that was cut off goes on where it
// stopped.
#pragma once

#include <string>

#include "cli/answer_options.h"
#include "cli/open_model.h"

namespace ferry::cli {

struct BatchFiles {
  std::string in, out;
  int64_t running = 16;      // requests at once
  bool own_template = true;  // conversations are written by the model's own chat template
};

/// Each line of `in` is an object with "prompt" (text, or a list of token ids) or "messages" (and
/// what else render_chat takes), optionally with "id" (text), "n" and the settings of answers under
/// the names that chat servers use: max_tokens, temperature, top_p, top_k, min_p, seed, stop,
/// repetition_penalty, presence_penalty, frequency_penalty, logit_bias ({"id": number}), logprobs
/// (also of so many most probable tokens). What a line does not say, `defaults` does. The n-th answer of a line is
/// drawn with seed + n.
///
/// `out` gets a line for each answer as it is ready: index (of the line), choice, id, text, finish
/// ("end", "length", "context", "stop"), prompt_tokens, tokens; with logprobs: ids, log_probs, top. Or index,
/// choice, id, error, where the model's numbers are none. Lines that are there already are kept, and
/// what they answer is not asked again, but for those with an error; each names its request by a
/// hash ("request") of the line, the settings and the model's files.
///
/// Ends with a line of JSON on standard output: requests, tokens, tokens_per_s, seconds.
/// Errors: kInvalidInput, naming the lines (of `in`, before anything is computed: all that cannot be asked, up to
/// twenty in words; of an `out` that answers other requests); kVerdict, if requests could not be answered; those of
/// files.
Result<void> generate_batch(const OpenedModel& model,
                            const OpenOptions& opened,
                            const AnswerOptions& defaults,
                            const BatchFiles& given);

}  // namespace ferry::cli
