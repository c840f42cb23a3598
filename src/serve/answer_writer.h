// How an API puts an answer into words: as one document, or as events of a stream while it comes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "serve/api_error.h"
#include "serve/model_info.h"
#include "serve/question.h"
#include "text/answer_parser.h"

namespace ferry::serve {

/// What all documents about one question have in common.
struct AnswerHead {
  std::string id;           // without the API's prefix: hexadecimal digits
  std::string model;        // the name under which it was asked
  std::string fingerprint;  // of the program and the model
  int64_t created_s = 0;    // unix time
};

struct ToolCall {
  std::string id, name, arguments;
};

enum class AnswerEnd { kStop, kLength, kToolCalls };

/// A piece of an answer: what is said, or thought, in one go, or a call.
struct AnswerPart {
  text::AnswerDelta::Kind kind = text::AnswerDelta::Kind::kContent;  // or kReasoning, kCall
  std::string text = {};                                             // not of calls
  size_t call = 0;                                                   // of Answer::calls
  bool ended = false;                                                // of calls: their end came
};

/// One of a question's answers, as far as it has come.
struct Answer {
  std::string content, reasoning;
  std::vector<ToolCall> calls;
  std::vector<AnswerPart> parts;      // all of the three, in the order in which they came
  std::vector<engine::Token> prompt;  // from the second one on, if they are wanted
  std::vector<engine::Token> tokens;  // kept if log-probabilities or ids are wanted
  std::optional<AnswerEnd> end;
  std::string stopped_by;  // the stop text
  int64_t tokens_made = 0, tokens_thought = 0;
};

/// What is new in an answer since the last time.
struct AnswerNews {
  std::vector<text::AnswerDelta> deltas;
  size_t first_token = 0;  // of Answer::tokens, those from here on
};

struct AnswerUsage {
  int64_t prompt = 0, cached = 0, completion = 0, thought = 0;
  int64_t begun = 0;  // answers that have a token
  double prompt_s = 0,
         completion_s = 0;  // reading the prompt, and the answer after its first token
};

/// Writes the answers to one question. `question` and `model` outlive it.
class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;

  virtual ApiStyle style() const { return ApiStyle::kOpenAi; }  // of errors

  /// All of it, in one document.
  virtual std::string document(const std::vector<Answer>& answers, const AnswerUsage& usage) = 0;

  // Events of a stream ("data: ...\n\n"):
  /// While there is nothing to say, before begin(), too: so that nobody takes the stream for dead. Some clients count
  /// events alone, so it is one where the API has one for it.
  virtual std::string keep_alive() { return ": keep-alive\n\n"; }
  // In this order:
  virtual std::string begin(const std::vector<Answer>& answers, const AnswerUsage& usage) = 0;
  /// `news`, and, if answer.end is there, that it ended.
  virtual std::string more(size_t index,
                           const Answer& answer,
                           const AnswerNews& news,
                           const AnswerUsage& usage) = 0;
  virtual std::string end(const std::vector<Answer>& answers, const AnswerUsage& usage) = 0;
  /// Instead of what is still to come.
  virtual std::string failure(const ApiError& error) = 0;
};

using WriterMaker = std::unique_ptr<AnswerWriter> (*)(const ModelInfo& model,
                                                      const Question& question,
                                                      const AnswerHead& head);

std::unique_ptr<AnswerWriter> chat_writer(const ModelInfo& model,
                                          const Question& question,
                                          const AnswerHead& head);
std::unique_ptr<AnswerWriter> completion_writer(const ModelInfo& model,
                                                const Question& question,
                                                const AnswerHead& head);

}  // namespace ferry::serve
