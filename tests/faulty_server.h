// A server that answers from a model as OpenAI-compatible ones do, with one fault switched on: what
// goes wrong with servers in practice, each in the way in which it does. For tests of whoever finds
// such faults.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "tensor/dtype.h"

namespace ferry {

enum class ServerFault {
  kNone,
  kOtherTokenizer,  // texts are cut by another vocabulary
  kOtherIds,        // ... into as many tokens, of which one is another
  kOtherTemplate,   // conversations become ChatML
  kNoAnswerAsked,   // ... or the model's own template without what asks for an answer
  kSystemDropped,   // ... or are read without their system message
  kBeginLost,       // no begin token before texts
  kBeginTwice,      // two
  kRopeIgnored,     // config.json's rope_scaling
  kInt8,            // weights
  kInt4,
  kOtherModel,   // of the same shape
  kEndless,      // end tokens end nothing
  kEndsEarly,    // another token ends answers as well
  kCut,          // of long texts the last tokens alone are read, and all are counted
  kGarbled,      // what stands behind a place is read as something else
  kGarbledLate,  // ... near the end of what the model can read
  kLateAnswers,  // what is written behind a long text is written behind another; the text's own numbers are right
  kUnshown,  // what is written to conversations is thrown away
  kTalksOn,  // more tokens than are asked for
  kSeedIgnored,
  kSeedFixed,     // every seed is the same one
  kAlwaysGreedy,  // temperature 0 whatever is asked for
  kNeverGreedy,   // temperature 1
  kHot,           // temperature 1 is 2
  kCool,          // ... 0.6
  kPenalised,     // tokens of the prompt, and its log-probabilities say so
  kLoad,          // beside another request a token of the prompt is lost
  kLoadOne,       // ... of every eighth of them
  kLoadSlips,     // ... the last token of every eighth is not the most probable one
  kEndingSlips,  // the last token behind a text's other ending is not the most probable one, at any time
  kCache,        // the second time a token of the prompt is lost
  kCacheOne,     // ... of every eighth that comes again
  kCacheBlocks,  // of a text whose first block of kFaultyServerBlock tokens was met a token is lost
  kCacheEndings,  // ... if it goes on otherwise than what was met
  kKeyUnasked,
  kKeyUnaskedAside,  // by the paths that are not OpenAI's
  kBreaksOff,        // after some questions it closes connections without an answer
  kNotJson,          // hostile answers
  kNan,
  kEndlessBody,
  kWrongTypes,
};

/// What it gives, and how.
struct ServerManner {
  enum class LogProbs {
    kNone,
    kIds,    // as vLLM: ids, prompt_logprobs
    kTexts,  // as llama-cpp-python: texts of tokens, echo, no ids taken
  } log_probs = LogProbs::kIds;
  DType compute = DType::kF32;
  bool chats = true, completes = true;
  std::string key = {};  // asked for; empty: none
  bool strict = false;   // unknown fields are refused by name
  bool chat_log_probs = true;
  bool thinks = false;  // what it writes to conversations it shows as thoughts
  bool biases = true;   // logit_bias is honoured
  int loading = 0;      // so many requests, whatever they ask, are first refused: not now
  int busy = 0;         // ... so many questions
  std::function<bool(const std::string& body)> not_now =
      {};  // ... and questions of which this is true
  int not_now_status = 503;
  std::string retry_after = {};  // what it says with that; empty: nothing
  std::optional<int64_t> cached =
      {};  // tokens that it says come from its cache; nothing: it says nothing
};

/// Listens on a port of 127.0.0.1 from its construction to its end.
class FaultyServer {
 public:
  FaultyServer(const std::string& directory, ServerFault fault, const ServerManner& manner);
  ~FaultyServer();
  FaultyServer(const FaultyServer&) = delete;
  FaultyServer& operator=(const FaultyServer&) = delete;

  std::string address() const;
  /// How many questions did not switch off what servers do by default.
  int64_t without_extras() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// What of a long text kCut and kGarbled leave right, and kGarbledLate.
inline constexpr int kFaultyServerKeeps = 96, kFaultyServerKeepsMost = 470;
inline constexpr int kFaultyServerBlock = 128;

}  // namespace ferry
