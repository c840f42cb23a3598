#include "serve/answering.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ferry::serve {
namespace {

using Kind = text::AnswerDelta::Kind;

}  // namespace

Answering::Answering(std::shared_ptr<const ModelInfo> model,
                     Question question,
                     const AnswerHead& head,
                     WriterMaker writer,
                     std::shared_ptr<HttpExchange> exchange,
                     double asked_s,
                     std::function<void(size_t)> cancel)
    : model_(std::move(model)),
      question_(std::move(question)),
      call_prefix_("call_" + head.id + "_"),
      writer_(writer(*model_, question_, head)),
      exchange_(std::move(exchange)),
      cancel_(std::move(cancel)),
      asked_s_(asked_s),
      wrote_s_(asked_s) {
  const auto count = static_cast<size_t>(question_.answers());
  answers_.resize(count);
  for (const Prompt& prompt : question_.prompts) {
    usage_.prompt += std::ssize(prompt.ids);
    for (int64_t c = 0; c < question_.choices; ++c) {
      Reading r{
          .text = text::AnswerText(*model_->texts.tokenizer,
                                   question_.stop,
                                   question_.chat ? model_->syntax.marks : std::vector<int32_t>()),
          .parser = std::nullopt,
          .thinking = prompt.thinking};
      if (question_.chat)
        r.parser.emplace(text::AnswerParserOptions{.syntax = model_->syntax,
                                                   .thinking = prompt.thinking,
                                                   .thought_begun = prompt.thought_begun,
                                                   .tools = question_.tools,
                                                   .only_calls = question_.only_calls});
      readings_.push_back(std::move(r));
    }
  }
}

std::vector<engine::Request> Answering::requests(const std::string& salt) const {
  std::vector<engine::Request> all;
  for (const Prompt& prompt : question_.prompts)
    for (int64_t c = 0; c < question_.choices; ++c) {
      engine::Request r{.prompt = prompt.ids, .options = question_.options, .salt = salt};
      // What is drawn depends on seed and place alone: unless the seed was named, equal prompts are to be drawn apart.
      r.options.sampling.seed += question_.seeded ? static_cast<uint64_t>(c) : all.size();
      all.push_back(std::move(r));
    }
  return all;
}

void Answering::send(std::string_view events) {
  if (events.empty()) return;
  if (!std::exchange(begun_, true))
    exchange_->begin({.content_type = "text/event-stream",
                      .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}});
  exchange_->write(events);
}

void Answering::take(
    size_t index, const engine::Progress& progress, double pass_s, double now_s, Metrics& metrics) {
  Answer& answer = answers_[index];
  if (done_ || answer.end) return;  // news that were on their way when it ended
  if (progress.finish == engine::Finish::kFailed) return fail(api_error(progress.error));
  Reading& r = readings_[index];
  if (began_s_ == 0) {
    began_s_ = pass_s;
    metrics.began(pass_s - asked_s_);
  }
  // Of the choices for one prompt, the later ones find what the first has read.
  if (!std::exchange(r.began, true) && index % static_cast<size_t>(question_.choices) == 0)
    usage_.cached += progress.reused;
  if (progress.tokens.empty() && progress.finish == engine::Finish::kNone) return;
  std::string events;
  if (first_s_ == 0) {
    first_s_ = now_s;
    metrics.first_token(now_s - asked_s_);
    if (question_.stream) events = writer_->begin(answers_, usage_);
  }
  if (r.last_s == 0 && !progress.tokens.empty() && !question_.no_answer) ++usage_.begun;
  if (r.last_s > 0 && !progress.tokens.empty())
    metrics.next_tokens(now_s - r.last_s, std::ssize(progress.tokens));
  r.last_s = now_s;
  usage_.prompt_s = first_s_ - began_s_;
  usage_.completion_s = now_s - first_s_;

  AnswerNews news{.first_token = answer.tokens.size()};
  if (!progress.prompt.empty()) answer.prompt = progress.prompt;
  if (question_.no_answer) {
    answer.end = AnswerEnd::kLength;
    if (progress.finish == engine::Finish::kNone) cancel_(index);
  } else {
    take_tokens(index, progress, news);
  }
  if (!answer.end && progress.finish != engine::Finish::kNone) finish(index, progress.finish, news);
  const bool ended = std::all_of(
      answers_.begin(), answers_.end(), [](const Answer& a) { return a.end.has_value(); });
  if (question_.stream) {
    events += writer_->more(index, answer, news, usage_);
    if (ended) events += writer_->end(answers_, usage_);
    if (!events.empty()) wrote_s_ = now_s;
    done_ = ended;  // before it is written: its client may leave at that
    send(events);
    if (ended) exchange_->end();
  } else if (ended) {
    done_ = true;
  }
}

uint64_t Answering::document_bytes() const {
  constexpr uint64_t kTokenBytes =
      64;  // of a token with its log-probability; or of its id, and more
  const auto tops = [](const std::optional<int64_t>& top) {
    return top ? static_cast<uint64_t>(*top) + 1 : 0;
  };
  uint64_t bytes = question_.repeated.size();
  for (const Prompt& prompt : question_.prompts)
    bytes += (question_.echo ? prompt.text.size() : 0) +
             (question_.token_ids ? 8 * prompt.ids.size() : 0);
  for (const Answer& a : answers_) {
    const uint64_t of_each = tops(question_.options.top_log_probs);
    bytes += a.content.size() + a.reasoning.size();
    for (const ToolCall& call : a.calls) bytes += call.arguments.size();
    bytes += kTokenBytes * (a.prompt.size() * (tops(question_.options.prompt_top_log_probs) +
                                               (question_.echo ? of_each : 0)) +
                            a.tokens.size() * std::max<uint64_t>(1, of_each));
  }
  return bytes;
}

void Answering::answer(ApiResult<std::string> document) {
  exchange_->answer(document ? HttpResponse{.body = *std::move(document)}
                             : error_response(document.error(), writer_->style()));
}

void Answering::take_tokens(size_t index, const engine::Progress& progress, AnswerNews& news) {
  Answer& a = answers_[index];
  Reading& r = readings_[index];
  for (const engine::Token& token : progress.tokens) {
    ++a.tokens_made;
    ++usage_.completion;
    if (r.thinking) {
      ++a.tokens_thought;
      ++usage_.thought;
    }
    if (question_.options.top_log_probs || question_.token_ids) a.tokens.push_back(token);
    const std::string piece = r.text.push(token.id);
    if (!piece.empty()) {
      if (r.parser)
        add(index, r.parser->push(piece), news);
      else
        add(index, {{.kind = Kind::kContent, .text = piece}}, news);
    }
    if (r.text.stopped()) {
      a.stopped_by = r.text.stopped_by();
      finish(index, engine::Finish::kEnd, news);
    }
    if (!a.end) continue;
    if (progress.finish == engine::Finish::kNone || &token != &progress.tokens.back())
      cancel_(index);
    return;
  }
}

void Answering::add(size_t index, std::vector<text::AnswerDelta> deltas, AnswerNews& news) {
  Answer& a = answers_[index];
  for (text::AnswerDelta& d : deltas) {
    if (a.end) return;
    switch (d.kind) {
      case Kind::kReasoning:
      case Kind::kContent:
        (d.kind == Kind::kReasoning ? a.reasoning : a.content) += d.text;
        if (a.parts.empty() || a.parts.back().kind != d.kind) a.parts.push_back({.kind = d.kind});
        a.parts.back().text += d.text;
        break;
      case Kind::kCall:
        a.parts.push_back({.kind = d.kind, .call = a.calls.size()});
        a.calls.push_back(
            {.id = call_prefix_ + std::to_string(index) + "_" + std::to_string(d.call),
             .name = d.text,
             .arguments = ""});
        break;
      case Kind::kArguments: a.calls.back().arguments += d.text; break;
      case Kind::kCallEnd:
        if (readings_[index].over) break;  // cut off
        a.parts.back().ended = true;
        if (question_.one_call) a.end = AnswerEnd::kToolCalls;
        break;
    }
    readings_[index].thinking = d.kind == Kind::kReasoning;
    if (!news.deltas.empty() && news.deltas.back().kind == d.kind && d.kind != Kind::kCall &&
        d.kind != Kind::kCallEnd && news.deltas.back().call == d.call)
      news.deltas.back().text += d.text;
    else
      news.deltas.push_back(std::move(d));
  }
}

void Answering::finish(size_t index, engine::Finish finish, AnswerNews& news) {
  Answer& a = answers_[index];
  Reading& r = readings_[index];
  if (std::string rest = r.text.flush(); !rest.empty()) {
    if (r.parser)
      add(index, r.parser->push(rest), news);
    else
      add(index, {{.kind = Kind::kContent, .text = std::move(rest)}}, news);
  }
  r.over = true;
  if (r.parser) add(index, r.parser->finish(), news);
  if (a.end) return;
  if (finish != engine::Finish::kEnd)
    a.end = AnswerEnd::kLength;
  else
    a.end = a.calls.empty() ? AnswerEnd::kStop : AnswerEnd::kToolCalls;
}

void Answering::fail(const ApiError& error) {
  if (done_ && !owes_document()) return;
  done_ = failed_ = true;
  for (size_t i = 0; i < answers_.size(); ++i)
    if (!answers_[i].end) cancel_(i);
  if (!begun_) return exchange_->answer(error_response(error, writer_->style()));
  send(writer_->failure(error));
  exchange_->end();
}

void Answering::keep_alive(double now_s, double quiet_s) {
  if (!accepted_ || !question_.stream || done_ || now_s - wrote_s_ < quiet_s) return;
  wrote_s_ = now_s;
  send(writer_->keep_alive());
}

void Answering::count(Metrics& metrics, double now_s, bool aborted) const {
  if (!accepted_) return;
  const char* reason = "stop";
  if (failed_) {
    reason = "error";
  } else if (aborted) {
    reason = "abort";
  } else if (answers_.front().end == AnswerEnd::kLength) {
    reason = "length";
  } else if (answers_.front().end == AnswerEnd::kToolCalls) {
    reason = "tool_calls";
  }
  metrics.finished({.reason = reason,
                    .prompt = usage_.prompt,
                    .tokens = usage_.completion,
                    .tokens_max = question_.options.tokens_max,
                    .whole_s = now_s - asked_s_,
                    .prefill_s = usage_.prompt_s,
                    .decode_s = usage_.completion_s});
}

}  // namespace ferry::serve
