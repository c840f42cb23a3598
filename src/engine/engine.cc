#include "engine/engine.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "device/cpu/cpu_device.h"
#include "engine/draft.h"
#include "ops/token_log_probs/token_log_probs.h"

namespace ferry::engine {
namespace {

constexpr int64_t kTopMax = 64;
constexpr size_t kPromptRows = 64;

SchedulerLimits limits_of(const models::CausalLm& model, const EngineOptions& o) {
  return {.pages = models::pages_for(o.cache_tokens),
          .positions = model.max_positions(),
          .running = o.running,
          .tokens_per_pass = o.tokens_per_pass,
          .waiting = o.waiting,
          .waiting_tokens = o.waiting_tokens,
          .remember = o.remember};
}

/// Rows of the pass whose logits are wanted: of a part that reaches the last known token, that one
/// and its drafts.
int64_t rows_wanted(const PassPart& part) { return part.wanted ? part.drafts + 1 : 0; }

/// A token whose log-probability is wanted, and of how many of the most probable in its place.
struct Wanted {
  Token* token;
  int64_t row;  // of the logits
  int64_t top;
  float temperature;
};

/// `on_host` are the logits, [rows, vocab].
void fill_log_probs(const Tensor& logits,
                    std::span<const float> on_host,
                    std::span<const Wanted> wanted) {
  if (wanted.empty()) return;
  const int64_t rows = logits.dim(0), vocabulary = logits.dim(1);
  int64_t columns = 0;
  for (const Wanted& w : wanted) columns = std::max(columns, 1 + w.top);
  std::vector<int32_t> ids(static_cast<size_t>(rows * columns), -1);
  std::vector<float> temperatures(static_cast<size_t>(rows), 1);
  for (const Wanted& w : wanted) {
    int32_t* const at = ids.data() + w.row * columns;
    temperatures[static_cast<size_t>(w.row)] = w.temperature;
    at[0] = w.token->id;
    const auto top = largest_logits(
        on_host.subspan(static_cast<size_t>(w.row * vocabulary), static_cast<size_t>(vocabulary)),
        w.top);
    std::copy(top.begin(), top.end(), at + 1);
  }
  Device& device = logits.device();
  const std::vector<float> values =
      ops::token_log_probs(logits,
                           Tensor::from_i32(ids, {rows, columns}, device),
                           Tensor::from_f32(temperatures, {rows}, device))
          .to_f32();
  for (const Wanted& w : wanted) {
    const auto at = static_cast<size_t>(w.row * columns);
    w.token->log_prob = values[at];
    for (int64_t i = 1; i <= std::min(w.top, vocabulary); ++i)
      w.token->top.emplace_back(ids[at + static_cast<size_t>(i)],
                                values[at + static_cast<size_t>(i)]);
  }
}

}  // namespace

/// A pass that throws may have left anything in the cache.
struct Engine::PassGuard {
  explicit PassGuard(Engine& of) : engine(of) {}
  ~PassGuard() {
    if (done) return;
    engine.scheduler_.lose_cache();
    engine.cache_.reset();
  }
  Engine& engine;
  bool done = false;
};

Engine::Engine(models::CausalLm& model, const EngineOptions& options)
    : model_(&model), options_(options), scheduler_(limits_of(model, options)) {}

int64_t Engine::memory_bytes() const {
  const int64_t tokens = models::pages_for(options_.cache_tokens) * models::kPageTokens;
  return tokens * model_->cache_bytes_per_token(mtp()) + model_->position_bytes(tokens);
}

Result<void> Engine::answerable(const Request& request) const {
  const GenerateOptions& o = request.options;
  const int64_t vocabulary = model_->vocab_size();
  TRY(validate(o.sampling, vocabulary));
  if (o.tokens_max < (o.prompt_top_log_probs ? 0 : 1))
    return fail(Code::kInvalidInput, "{} new tokens: ask for at least one", o.tokens_max);
  for (const std::optional<int64_t>& top : {o.top_log_probs, o.prompt_top_log_probs})
    if (top && (*top < 0 || *top > kTopMax))
      return fail(Code::kInvalidInput,
                  "log-probabilities of {} tokens: must be from 0 to {}",
                  *top,
                  kTopMax);
  if (!(o.log_prob_temperature >= kLogProbTemperatureMin && o.log_prob_temperature <= 100))
    return fail(Code::kInvalidInput,
                "temperature {} of log-probabilities: must be from {} to 100",
                o.log_prob_temperature,
                kLogProbTemperatureMin);
  for (const int32_t id : request.prompt)
    if (id < 0 || id >= vocabulary)
      return fail(
          Code::kInvalidInput, "prompt: token {}; the vocabulary has {} tokens", id, vocabulary);
  if (o.constraint != nullptr) {
    for (const int32_t id : o.end_tokens)
      if (id < 0 || id >= vocabulary)
        return fail(Code::kInvalidInput, "end token {}: the vocabulary has {}", id, vocabulary);
    if (o.end_tokens.empty())
      return fail(Code::kInvalidInput,
                  "an answer that is held to a form must be able to end: give an end token");
  }
  return scheduler_.check_fits(std::ssize(request.prompt), o.tokens_max);
}

/// What is kept of a request; its prompt stays where it is.
Result<Engine::Asked> Engine::read(Request& request) const {
  TRY(answerable(request));
  Asked asked{.options = std::move(request.options),
              .prompt = std::ssize(request.prompt),
              .draft = options_.drafts,
              .scored = {},
              .form = {}};
  const GenerateOptions& o = asked.options;
  if (o.constraint != nullptr)
    asked.form =
        std::make_unique<ConstrainedAnswer>(o.constraint, o.end_tokens, model_->vocab_size());
  return asked;
}

Result<std::vector<RequestId>> Engine::submit(std::vector<Request> together) {
  std::vector<Asked> all;
  std::vector<Scheduler::Asked> scheduled;
  for (Request& request : together) {
    TRY_ASSIGN(Asked asked, read(request));
    // The last token of a prompt is run in any case, and what follows it chosen.
    scheduled.push_back({.prompt = std::move(request.prompt),
                         .tokens_max = asked.options.tokens_max,
                         .salt = std::move(request.salt),
                         .anew = asked.options.prompt_top_log_probs.has_value()});
    all.push_back(std::move(asked));
  }
  TRY_ASSIGN(std::vector<RequestId> ids, scheduler_.submit(std::move(scheduled)));
  for (size_t i = 0; i < ids.size(); ++i) asked_.emplace(ids[i], std::move(all[i]));
  return ids;
}

Result<RequestId> Engine::submit(Request request) {
  std::vector<Request> one;
  one.push_back(std::move(request));
  TRY_ASSIGN(const std::vector<RequestId> ids, submit(std::move(one)));
  return ids.front();
}

bool Engine::cancel(RequestId id) {
  asked_.erase(id);
  return scheduler_.cancel(id);
}

/// The hidden states of the pass's tokens.
Tensor Engine::forward(const Pass& pass, models::ForwardTrace& trace) {
  if (cache_ == nullptr)
    cache_ = model_->make_cache(models::pages_for(options_.cache_tokens), mtp());
  for (const Pass::Copy& c : pass.copies) cache_->copy_rows(c.from, c.to, c.tokens);
  std::vector<models::KvCache::Part> parts;
  std::vector<int32_t> tokens;
  for (const PassPart& part : pass.parts) {
    parts.push_back({part.pages, part.length, std::ssize(part.tokens)});
    tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
  }
  const ops::Segments segments = cache_->begin(parts);
  models::ForwardOptions options;
  options.cache = cache_.get();
  counts_.tokens_run += std::ssize(tokens);
  return model_->forward(
      Tensor::from_i32(tokens, {std::ssize(tokens)}, model_->device()), segments, options, &trace);
}

double Engine::cache_usage() const {
  const auto pages = static_cast<double>(models::pages_for(options_.cache_tokens));
  return 1 - static_cast<double>(scheduler_.pages_free()) / pages;
}

std::vector<Progress> Engine::step() {
  const Pass pass = scheduler_.plan();
  counts_.preemptions = scheduler_.preemptions();
  if (pass.parts.empty()) return {};
  ++counts_.passes;
  std::vector<int64_t> rows;
  int64_t row = 0;
  for (const PassPart& part : pass.parts) {
    row += std::ssize(part.tokens);
    for (int64_t r = row - rows_wanted(part); r < row; ++r) rows.push_back(r);
  }
  Tensor logits;
  std::vector<float> on_host;
  std::vector<Result<Chosen>> chosen;
  std::vector<std::optional<int32_t>> guesses(pass.parts.size());
  {
    PassGuard pass_guard(*this);
    models::ForwardTrace trace;
    trace.keep_before_norm = mtp();
    const Tensor hidden = forward(pass, trace);
    if (!rows.empty()) {
      logits = model_->logits(hidden, rows);
      on_host = logits.to_f32();
    } else {
      model_->device().stream().synchronize();  // a chip's errors are this pass's
    }
    std::vector<size_t> first_row(pass.parts.size(), 0);  // of each part
    for (size_t i = 1; i < pass.parts.size(); ++i)
      first_row[i] = first_row[i - 1] + static_cast<size_t>(rows_wanted(pass.parts[i - 1]));
    const auto vocabulary = static_cast<size_t>(model_->vocab_size());
    chosen.assign(pass.parts.size(), Chosen{});
    cpu_pool().parallel_for(std::ssize(pass.parts), [&](int64_t i, int) {
      const auto p = static_cast<size_t>(i);
      const size_t count = static_cast<size_t>(rows_wanted(pass.parts[p])) * vocabulary;
      chosen[p] =
          choose(pass.parts[p], std::span(on_host).subspan(first_row[p] * vocabulary, count));
    });
    if (logits.defined()) add_log_probs(logits, on_host, pass, chosen);
    score_prompts(hidden, pass, chosen);
    if (mtp()) guesses = guess(pass, trace.before_norm, chosen);
    pass_guard.done = true;
  }
  std::vector<Progress> news;
  std::vector<RequestId> failed;
  bool spoiled = false;  // numbers that are none were computed
  for (size_t i = 0; i < pass.parts.size(); ++i) {
    const PassPart& part = pass.parts[i];
    Asked& asked = asked_.at(part.id);
    const bool begins = !asked.reused;
    if (begins) {
      asked.reused = scheduler_.reused(part.id);
      counts_.tokens_asked += asked.prompt;
      counts_.tokens_reused += *asked.reused;
    }
    if (!chosen[i]) {
      failed.push_back(part.id);
      spoiled |= chosen[i].error().code == Code::kVerdict;
      asked_.erase(part.id);
      news.push_back({.id = part.id, .finish = Finish::kFailed, .error = chosen[i].error()});
      continue;
    }
    auto& [progress, scored, ids] = *chosen[i];
    asked.scored.insert(asked.scored.end(), scored.begin(), scored.end());
    if (part.wanted) {
      progress.prompt = std::move(asked.scored);
      asked.options.prompt_top_log_probs.reset();
    }
    progress.reused = *asked.reused;
    const bool finished = progress.finish != Finish::kNone;
    scheduler_.advance(part, ids, finished);
    counts_.tokens_answered += std::ssize(progress.tokens) + (progress.end ? 1 : 0);
    counts_.drafted += part.drafts;
    if (part.drafts > 0) {
      const int64_t right = std::ssize(ids) - 1;
      counts_.accepted += right;
      asked.draft = right == part.drafts ? std::min(2 * asked.draft, options_.drafts)
                                         : std::max<int64_t>(1, right);
    }
    if (finished)
      asked_.erase(part.id);
    else if (part.wanted && options_.drafts > 0)
      scheduler_.propose(part.id, next_draft(asked, part.id, guesses[i]));
    if (part.wanted || begins) news.push_back(std::move(progress));
  }
  for (const RequestId id : failed) scheduler_.cancel(id);
  // What gave no answer once may lie in pages that others would find. (A form that cannot go on says nothing of them.)
  if (spoiled) scheduler_.lose_cache();
  return news;
}

/// One token after the other, as long as the draft was right: what is chosen does not depend on it.
Result<Engine::Chosen> Engine::choose(const PassPart& part, std::span<const float> logits) {
  Chosen out{.progress = {.id = part.id, .prompt = {}}, .scored = {}, .ids = {}};
  if (!part.wanted) return out;
  Asked& asked = asked_.at(part.id);
  const SamplingOptions& sampling = asked.options.sampling;
  const bool looks_back = sampling.repeats_cost() || sampling.answers_cost();
  const std::span<const int32_t> known = scheduler_.tokens(part.id);
  std::vector<int32_t> text(known.begin(), known.end());
  const auto vocabulary = static_cast<size_t>(model_->vocab_size());
  const auto& ends = asked.options.end_tokens;
  for (int64_t i = 0; i <= part.drafts; ++i) {
    std::span<const int32_t> among;
    if (asked.form != nullptr) {
      TRY_ASSIGN(
          among,
          asked.form->allowed_after(std::span(text).subspan(static_cast<size_t>(asked.prompt))));
    }
    if (looks_back) asked.before.follow(text, asked.prompt);
    TRY_ASSIGN(const Sampled s,
               sample(logits.subspan(static_cast<size_t>(i) * vocabulary, vocabulary),
                      sampling,
                      text.size(),
                      asked.before,
                      among));
    out.ids.push_back(s.token);
    text.push_back(s.token);
    if (asked.options.tokens_max == 0) {
      out.progress.finish = Finish::kLength;
      break;
    }
    Token token{.id = s.token, .drawn_log_prob = s.log_probability, .top = {}};
    if (std::find(ends.begin(), ends.end(), s.token) != ends.end()) {
      out.progress.end = std::move(token);
      out.progress.finish = Finish::kEnd;
      break;
    }
    out.progress.tokens.push_back(std::move(token));
    const int64_t answered = std::ssize(text) - asked.prompt;
    const bool context = std::ssize(text) == model_->max_positions();
    if (answered == asked.options.tokens_max || context) {
      out.progress.finish =
          answered == asked.options.tokens_max ? Finish::kLength : Finish::kContext;
      break;
    }
    const auto drafted = part.tokens.end() - part.drafts + i;
    if (i < part.drafts && *drafted != s.token) break;
  }
  return out;
}

/// What the MTP modules think comes after what was chosen, for each part that goes on. They run over
/// the tokens of the pass that count, each with the one after it: their cache is part of the pages.
std::vector<std::optional<int32_t>> Engine::guess(const Pass& pass,
                                                  const Tensor& before_norm,
                                                  const std::vector<Result<Chosen>>& chosen) {
  std::vector<models::KvCache::Part> parts;
  std::vector<int64_t> rows, last;  // of before_norm; of these, each part's last
  std::vector<int32_t> next;
  std::vector<size_t> goes_on;
  int64_t first = 0;
  for (size_t p = 0; p < pass.parts.size(); ++p) {
    const PassPart& part = pass.parts[p];
    if (chosen[p]) {  // also those that end: others may find their pages
      const std::vector<int32_t>& ids = chosen[p]->ids;
      const int64_t known = std::ssize(part.tokens) - part.drafts,
                    count = known + (part.wanted ? std::ssize(ids) - 1 : 0);
      parts.push_back({part.pages, part.length, count});
      for (int64_t t = 0; t < count; ++t) rows.push_back(first + t);
      next.insert(next.end(), part.tokens.begin() + 1, part.tokens.begin() + count);
      next.push_back(part.wanted
                         ? ids.back()
                         : scheduler_.tokens(part.id)[static_cast<size_t>(part.length + count)]);
      if (part.wanted && chosen[p]->progress.finish == Finish::kNone) {
        last.push_back(std::ssize(rows) - 1);
        goes_on.push_back(p);
      }
    }
    first += std::ssize(part.tokens);
  }
  std::vector<std::optional<int32_t>> guesses(pass.parts.size());
  if (parts.empty()) return guesses;
  const ops::Segments segments = cache_->begin(parts);
  const Tensor hidden = model_->draft(models::rows_of(before_norm, rows),
                                      Tensor::from_i32(next, {std::ssize(next)}, model_->device()),
                                      segments,
                                      *cache_);
  if (last.empty()) return guesses;
  const std::vector<float> logits = model_->logits(hidden, last).to_f32();
  const auto vocabulary = static_cast<size_t>(model_->vocab_size());
  for (size_t i = 0; i < goes_on.size(); ++i)
    guesses[goes_on[i]] = static_cast<int32_t>(
        std::max_element(logits.begin() + static_cast<long>(i * vocabulary),
                         logits.begin() + static_cast<long>((i + 1) * vocabulary)) -
        (logits.begin() + static_cast<long>(i * vocabulary)));
  return guesses;
}

/// The modules' guess and, where the text agrees with it, what followed there.
std::vector<int32_t> Engine::next_draft(const Asked& asked,
                                        RequestId id,
                                        const std::optional<int32_t>& guess) const {
  std::vector<int32_t> draft = draft_from_text(scheduler_.tokens(id), asked.draft);
  if (guess && (draft.empty() || draft.front() != *guess)) return {*guess};
  return draft;
}

/// By the op that training's losses agree with, on the device that computed the logits.
void Engine::add_log_probs(const Tensor& logits,
                           std::span<const float> on_host,
                           const Pass& pass,
                           std::vector<Result<Chosen>>& chosen) const {
  std::vector<Wanted> wanted;
  int64_t first = 0;
  for (size_t p = 0; p < chosen.size(); ++p) {
    const PassPart& part = pass.parts[p];
    const GenerateOptions& o = asked_.at(part.id).options;
    if (chosen[p] && o.top_log_probs) {
      Progress& progress = chosen[p]->progress;
      int64_t row = first;
      for (Token& t : progress.tokens)
        wanted.push_back({&t, row++, *o.top_log_probs, o.log_prob_temperature});
      if (progress.end)
        wanted.push_back({&*progress.end, row, *o.top_log_probs, o.log_prob_temperature});
    }
    first += rows_wanted(part);
  }
  fill_log_probs(logits, on_host, wanted);
}

/// Of the prompts that want it, the tokens that follow those of this pass. Logits of a few rows at a
/// time: of a whole prompt they are larger than many models.
void Engine::score_prompts(const Tensor& hidden,
                           const Pass& pass,
                           std::vector<Result<Chosen>>& chosen) const {
  struct Scored {
    size_t part;
    int64_t row;       // of hidden
    int64_t position;  // of the row's token
  };
  std::vector<Scored> scored;
  int64_t first = 0;
  for (size_t p = 0; p < chosen.size(); ++p) {
    const PassPart& part = pass.parts[p];
    const Asked& asked = asked_.at(part.id);
    const int64_t known = std::ssize(part.tokens) - part.drafts;
    if (chosen[p] && asked.options.prompt_top_log_probs)
      // After a fault or a preemption rows are run that were scored before.
      for (int64_t at = std::max(part.length, std::ssize(asked.scored));
           at < std::min(part.length + known, asked.prompt - 1);
           ++at)
        scored.push_back({p, first + at - part.length, at});
    first += std::ssize(part.tokens);
  }
  const auto vocabulary = static_cast<size_t>(model_->vocab_size());
  for (size_t begin = 0; begin < scored.size(); begin += kPromptRows) {
    const auto some =
        std::span(scored).subspan(begin, std::min(kPromptRows, scored.size() - begin));
    std::vector<int64_t> rows;
    for (const Scored& s : some) rows.push_back(s.row);
    const Tensor logits = model_->logits(hidden, rows);
    const std::vector<float> on_host = logits.to_f32();
    std::vector<Token> tokens(some.size());
    std::vector<Wanted> wanted;
    for (size_t i = 0; i < some.size(); ++i) {
      const PassPart& part = pass.parts[some[i].part];
      if (!chosen[some[i].part]) continue;
      const auto right = check_logits(std::span(on_host).subspan(i * vocabulary, vocabulary),
                                      static_cast<uint64_t>(some[i].position));
      if (!right) {
        chosen[some[i].part] = tl::unexpected(right.error());
        continue;
      }
      const GenerateOptions& o = asked_.at(part.id).options;
      tokens[i].id = scheduler_.tokens(part.id)[static_cast<size_t>(some[i].position + 1)];
      wanted.push_back(
          {&tokens[i], static_cast<int64_t>(i), *o.prompt_top_log_probs, o.log_prob_temperature});
    }
    fill_log_probs(logits, on_host, wanted);
    for (size_t i = 0; i < some.size(); ++i)
      if (chosen[some[i].part]) chosen[some[i].part]->scored.push_back(std::move(tokens[i]));
  }
}

}  // namespace ferry::engine
