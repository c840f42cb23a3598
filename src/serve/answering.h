// One question on its way: what the engine tells of its answers becomes text, and the text what its
// client is sent.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/answer_writer.h"
#include "serve/http_message.h"
#include "serve/metrics.h"
#include "text/answer_parser.h"
#include "text/answer_text.h"

namespace ferry::serve {

/// Owner: the server, on its thread, while the question is being answered. All times are of
/// Clock::monotonic_s.
class Answering {
 public:
  /// `cancel` is called for an answer that ends before the engine says so.
  Answering(std::shared_ptr<const ModelInfo> model,
            Question question,
            const AnswerHead& head,
            WriterMaker writer,
            std::shared_ptr<HttpExchange> exchange,
            double asked_s,
            std::function<void(size_t answer)> cancel);

  /// The requests that the engine is to answer, of each prompt all choices.
  std::vector<engine::Request> requests(const std::string& salt) const;

  /// The engine has taken them. Nothing is sent yet: as long as nothing is, a proxy may ask another server, and the
  /// status can still say what fails.
  void accepted() { accepted_ = true; }
  /// `pass_s`: when the pass began that brought it.
  void take(size_t index,
            const engine::Progress& progress,
            double pass_s,
            double now_s,
            Metrics& metrics);
  void fail(const ApiError& error);
  /// What a stream says that has had nothing to say for so long, so that nobody takes it for dead.
  void keep_alive(double now_s, double quiet_s);
  /// All was said. The exchange is over, but where the answer is a document that is still to be written.
  bool done() const { return done_; }
  bool failed() const { return failed_; }
  /// It failed before its client was told anything else: the response's status says so.
  bool refused() const { return failed_ && !begun_; }
  bool owes_document() const { return done_ && !failed_ && !question_.stream; }
  /// About how many bytes it has.
  uint64_t document_bytes() const;
  /// Once it is owed; may be called on another thread while this one does nothing but count.
  std::string document() { return writer_->document(answers_, usage_); }
  /// Its client did: it need not be written.
  void leave() { left_ = true; }
  bool left() const { return left_; }  // any thread
  /// The document, or why there is none.
  void answer(ApiResult<std::string> document);

  /// For metrics, once it is over; what the engine never took was no request of its. `aborted`: by its client.
  void count(Metrics& metrics, double now_s, bool aborted) const;
  const AnswerUsage& usage() const { return usage_; }

 private:
  /// What turns an answer's tokens into what it says.
  struct Reading {
    text::AnswerText text;
    std::optional<text::AnswerParser> parser;  // of chats
    bool thinking = false;
    bool began = false;
    bool over = false;  // no more text comes: what ends now was cut off
    double last_s = 0;  // when its last token came; 0: none has
  };

  /// Of a stream: its head goes with the first of it.
  void send(std::string_view events);
  void take_tokens(size_t index, const engine::Progress& progress, AnswerNews& news);
  void add(size_t index, std::vector<text::AnswerDelta> deltas, AnswerNews& news);
  void finish(size_t index, engine::Finish finish, AnswerNews& news);

  std::shared_ptr<const ModelInfo> model_;
  Question question_;
  std::string call_prefix_;  // of calls' ids
  std::unique_ptr<AnswerWriter> writer_;
  std::shared_ptr<HttpExchange> exchange_;
  std::function<void(size_t)> cancel_;
  std::vector<Answer> answers_;
  std::vector<Reading> readings_;
  AnswerUsage usage_;
  double asked_s_, began_s_ = 0, first_s_ = 0, wrote_s_;
  bool accepted_ = false, done_ = false, failed_ = false;
  bool begun_ = false;  // of a stream: its head was sent
  std::atomic<bool> left_ = false;
};

}  // namespace ferry::serve
