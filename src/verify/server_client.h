// Speaks to an OpenAI-compatible server, whichever it is: finds out what it can tell, and leaves away
// what it refuses to be asked.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "verify/http_client.h"
#include "verify/patience.h"
#include "verify/server_answer.h"

namespace ferry::verify {

/// A request for one answer.
struct Ask {
  /// A text or token ids to continue, or, `chat`, the JSON of a list of messages.
  std::variant<std::string, std::vector<int32_t>> prompt;
  bool chat = false;
  int64_t tokens = 8;
  double temperature = 0;
  std::optional<uint64_t> seed = {};
  std::optional<int32_t> favoured = {};  // a token that is to be far more probable than all others
  bool log_probs = true;                 // where the server gives them
  bool prompt_log_probs = false;         // as well
};

/// Whatever is refused because the server is too busy or still loading (408, 429, 503) is asked again, as long as the
/// patience lasts; only attempt_together leaves that to its caller.
class ServerClient {
 public:
  /// Finds out what the server can do. `model`: the name to ask for; empty: the first that it lists.
  /// `key`: empty: none. Errors: of HttpClient; kInvalidInput (no such model there, the key is
  /// refused); kUnavailable (it answers no question, or has no time).
  static Result<ServerClient> open(HttpClient http,
                                   const std::string& model,
                                   std::string key,
                                   Patience patience);

  /// Errors: kUnavailable, with what the server says; of HttpClient and read_answer.
  Result<ServerAnswer> ask(const Ask& question);
  std::vector<Result<ServerAnswer>> ask_together(std::span<const Ask> questions);

  struct Attempt {
    Result<ServerAnswer> answer;
    bool may_pass =
        false;          // it failed because the server was busy, in trouble, cut off or too slow
    bool busy = false;  // ... busy: what `patience` has to tell is to be said of it
    std::optional<double> retry_after_s = {};  // what it says of when to ask again
  };
  /// Each question once, for whoever asks again by rules of his own; `patience` is for him, too, who alone knows when
  /// it has come to its end: no answer tells of it.
  std::vector<Attempt> attempt_together(std::span<const Ask> questions);
  Patience& patience() { return patience_; }

  /// The server's own tokens of a text, where it has an endpoint for that.
  Result<std::optional<std::vector<int32_t>>> tokens_of(const std::string& text);

  struct Paths {
    std::vector<std::string> open;  // they answer
    std::vector<std::string> busy;  // nobody knows
  };
  /// What paths say to this key (empty: none): those that questions go to, and those that servers are known to have
  /// beside them.
  Result<Paths> open_with(const std::string& key);

  const std::string& address() const { return http_.address(); }
  const std::string& model() const { return model_; }
  int64_t requests() const { return requests_; }
  const std::vector<std::string>& notes() const { return notes_; }
  bool completes() const { return completes_; }
  bool chats() const { return chats_; }
  bool takes_ids() const { return takes_ids_; }
  bool gives_log_probs(bool chat) const { return chat ? chat_log_probs_ : log_probs_; }
  bool gives_prompt_log_probs() const { return prompt_log_probs_ != PromptLogProbs::kNone; }
  /// Whether it takes the fields that switch off what servers add by themselves to sampling.
  bool samples_plainly() const { return !left_out_.contains("top_k"); }

 private:
  enum class PromptLogProbs { kNone, kEcho, kField };

  ServerClient(HttpClient http, std::string key, Patience patience)
      : http_(std::move(http)), key_(std::move(key)), patience_(std::move(patience)) {}
  std::vector<Result<HttpReply>> ask_patiently(std::span<const HttpRequest> requests);
  Result<HttpReply> ask_patiently(const HttpRequest& request);
  std::vector<HttpRequest> requests_of(std::span<const Ask> questions) const;
  Result<std::optional<ServerAnswer>> try_ask(const Ask& question);
  Result<void> find_model(const std::string& wanted);
  Result<void> find_abilities();
  std::string body_of(const Ask& question) const;
  Result<ServerAnswer> read(const Ask& question,
                            const Result<HttpReply>& reply,
                            const std::string& told_if_busy) const;
  bool leave_out(const std::string& refusal);
  std::vector<std::pair<std::string, std::string>> paths_aside() const;  // path, body

  HttpClient http_;
  std::string key_, model_;
  Patience patience_;
  int64_t requests_ = 0;
  bool completes_ = false, chats_ = false, takes_ids_ = false;
  bool log_probs_ = true, chat_log_probs_ = true;
  PromptLogProbs prompt_log_probs_ = PromptLogProbs::kNone;
  std::vector<std::string> notes_;
  std::set<std::string> left_out_;  // of the fields that not every server knows
};

}  // namespace ferry::verify
