// Engine: many requests answered at once by one model, and each as if it were alone: tokens and
// log-probabilities are the same bits whoever else is asking, whatever was computed before, however
// prompts are cut and drafts are tried. It owns the cache; the scheduler decides what runs in it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/constrained_answer.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "models/causal_lm.h"

namespace ferry::engine {

/// Logits over a temperature below it are no float any more, whatever a model's logits are like.
inline constexpr float kLogProbTemperatureMin = 1e-6f;

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t tokens_max = 256;         // 0: only the prompt's log-probabilities are wanted
  std::vector<int32_t> end_tokens;  // generation stops at any of them
  /// Whether log-probabilities are wanted, and of how many of the most probable tokens beside the
  /// chosen one.
  std::optional<int64_t> top_log_probs;
  /// The same of the prompt's tokens. Such a prompt is run from its first token on: what the cache
  /// holds of it has no logits any more.
  std::optional<int64_t> prompt_top_log_probs;
  /// The temperature at which they are meant, from kLogProbTemperatureMin to 100; 1: the model's own.
  float log_prob_temperature = 1;
  /// What the answer is held to, if it is: no other token is chosen, and it ends only where it may
  /// (or where tokens_max do). Log-probabilities stay the model's own. Needs end tokens.
  std::shared_ptr<const grammar::Constraint> constraint = {};
};

struct Request {
  std::vector<int32_t> prompt;
  GenerateOptions options;
  std::string salt;  // what was computed for another salt is not used, and nobody can tell
};

struct Token {
  int32_t id = 0;
  double drawn_log_prob = 0;  // under the distribution that it was drawn from (engine/sampler.h)
  float log_prob = 0;         // log softmax(logits / log_prob_temperature), if it was wanted
  std::vector<std::pair<int32_t, float>> top;  // the same of the most probable ones, if wanted
};

enum class Finish {
  kNone,     // it goes on
  kEnd,      // the model ended it
  kLength,   // tokens_max are reached
  kContext,  // the model's positions are
  kFailed,   // see Progress::error
};

/// What a pass brought for one request.
struct Progress {
  RequestId id = 0;
  /// With the first token: the prompt's, from the second one on, each with the log-probability that it
  /// has after those before it; if they were wanted.
  std::vector<Token> prompt;
  std::vector<Token> tokens;
  std::optional<Token> end;  // the end token, which is no part of the answer
  Finish finish = Finish::kNone;
  /// If it failed. kVerdict: the model's numbers are none; kInvalidInput: its form cannot go on.
  Status error = {};
  int64_t reused = 0;  // tokens of the prompt that were found in the cache when it began
};

struct EngineOptions {
  int64_t cache_tokens = 4096;  // room in the cache; rounded up to whole pages
  int64_t running = 64;         // requests at once; fewer than tokens_per_pass
  int64_t tokens_per_pass = 512;
  int64_t waiting = 1024;  // requests that may wait, and their tokens: more are refused
  int64_t waiting_tokens = int64_t{1} << 20;
  bool remember = true;  // reuse what was computed for prompts that begin alike
  /// Tokens guessed ahead, at most: by the model's MTP modules, where it has them, and from the text
  /// before. No bit depends on it.
  int64_t drafts = 0;
};

struct EngineCounts {
  int64_t passes = 0;
  int64_t tokens_run = 0;       // through the model
  int64_t tokens_asked = 0;     // of prompts that began
  int64_t tokens_reused = 0;    // of these, found in the cache
  int64_t tokens_answered = 0;  // end tokens included
  int64_t drafted = 0, accepted = 0;
  int64_t preemptions = 0;
};

/// The model must outlive it. One thread.
class Engine {
 public:
  Engine(models::CausalLm& model, const EngineOptions& options);

  /// All of them, or none, as the scheduler's. Errors: kInvalidInput (a prompt, its options), kExhausted
  /// (too much is waiting).
  Result<std::vector<RequestId>> submit(std::vector<Request> together);
  Result<RequestId> submit(Request request);
  /// Whether it could be answered if there was nothing else. Errors: submit's, but for kExhausted.
  Result<void> answerable(const Request& request) const;
  /// The request ends without an answer; false if there is none.
  bool cancel(RequestId id);
  /// One pass of the model. Requests without news are not listed; that one began is news. Throws
  /// DeviceError; requests that
  /// are underway begin again with the next step, and nobody sees a difference.
  std::vector<Progress> step();

  /// As Scheduler's.
  int64_t length_max() const { return scheduler_.length_max(); }
  bool idle() const { return scheduler_.idle(); }
  int64_t running() const { return scheduler_.running(); }
  int64_t waiting() const { return scheduler_.waiting(); }
  const EngineCounts& counts() const { return counts_; }
  /// What it will have taken of the device's memory: the cache's pages, and the model's table of as
  /// many positions as they have room for.
  int64_t memory_bytes() const;
  double cache_usage() const;  // of the cache's pages, the share that requests hold

 private:
  struct PassGuard;
  struct Asked {
    GenerateOptions options;
    int64_t prompt = 0;
    int64_t draft = 0;              // tokens to guess next time: fewer after wrong ones
    std::optional<int64_t> reused;  // once it began: of the prompt, found in the cache
    std::vector<Token> scored;      // of the prompt, from its second token on
    std::unique_ptr<ConstrainedAnswer> form;
    TextBefore before = {};  // where there are penalties
  };
  /// What was chosen for a part of a pass.
  struct Chosen {
    Progress progress;
    std::vector<Token> scored;  // more of Asked::scored
    std::vector<int32_t> ids;   // end token included
  };
  Result<Asked> read(Request& request) const;
  bool mtp() const { return options_.drafts > 0 && model_->has_mtp(); }
  Tensor forward(const Pass& pass, models::ForwardTrace& trace);
  Result<Chosen> choose(const PassPart& part, std::span<const float> logits);
  void add_log_probs(const Tensor& logits,
                     std::span<const float> on_host,
                     const Pass& pass,
                     std::vector<Result<Chosen>>& chosen) const;
  void score_prompts(const Tensor& hidden,
                     const Pass& pass,
                     std::vector<Result<Chosen>>& chosen) const;

  std::vector<std::optional<int32_t>> guess(const Pass& pass,
                                            const Tensor& before_norm,
                                            const std::vector<Result<Chosen>>& chosen);
  std::vector<int32_t> next_draft(const Asked& asked,
                                  RequestId id,
                                  const std::optional<int32_t>& guess) const;

  models::CausalLm* model_;
  EngineOptions options_;
  Scheduler scheduler_;
  std::unique_ptr<models::KvCache> cache_;
  std::map<RequestId, Asked> asked_;
  EngineCounts counts_;
};

}  // namespace ferry::engine
