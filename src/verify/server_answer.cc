#include "verify/server_answer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json_fields.h"
#include "base/lenient_json.h"

namespace ferry::verify {
namespace {

using Json = nlohmann::json;

constexpr int64_t kTokensMax = int64_t{1} << 24;
// Servers round: a probability of 1 may come out a little above it. Below the other, some write the
// largest number that a float holds.
constexpr double kLogProbMax = 1e-3, kLogProbMin = -1e39, kLogProbLeast = -1e4;

/// The body, where what is wrong is the server's. Tokens that look alike are one key of
/// "top_logprobs", which some servers write twice.
Result<Json> parse(std::string_view body, const std::string& where) {
  Result<Json> json = parse_lenient_json(body, where);
  if (!json) return fail(Code::kUnavailable, "{}", json.error().message);
  // Some that stand between say with status 200 why they do not answer: these are the words to repeat.
  const bool refusal = json->is_object() && json->contains("error") && !(*json)["error"].is_null();
  if (refusal && !json->contains("choices") && !json->contains("data") && !json->contains("tokens"))
    return fail(Code::kUnavailable, "{}: the server says: {}", where, error_of(body));
  return json;
}

class Reader {
 public:
  Reader(const Json& body, const std::string& where)
      : problem_{.code = Code::kUnavailable, .advice = "", .status = {}},
        body_(body, where, problem_) {}

  Result<ServerAnswer> read(bool echoed) {
    if (body_.has("usage")) {
      JsonFields usage = body_.object("usage");
      if (usage.has("prompt_tokens"))
        out_.prompt_tokens = usage.integer("prompt_tokens", 0, kTokensMax);
      if (usage.has("completion_tokens"))
        out_.answer_tokens = usage.integer("completion_tokens", 0, kTokensMax);
      if (usage.has("prompt_tokens_details"))
        if (JsonFields details = usage.object("prompt_tokens_details");
            details.has("cached_tokens"))
          out_.cached_tokens = details.integer("cached_tokens", 0, kTokensMax);
    }
    const Json& choices = body_.list("choices");
    if (!problem_ && choices.empty()) body_.refuse("choices", "is empty");
    const Json none = Json::object();
    JsonFields choice = body_.item("choices", choices.empty() ? none : choices[0], 0);
    read_text(choice);
    out_.finish = choice.text("finish_reason", "");
    if (choice.has("logprobs")) read_log_probs(choice.object("logprobs"));
    for (JsonFields* at : {&body_, &choice}) {
      if (at->has("prompt_logprobs")) read_prompt_log_probs(*at);
      if (at->has("prompt_token_ids")) out_.prompt_ids = ids_of(*at, "prompt_token_ids");
    }
    if (choice.has("token_ids")) name_tokens(ids_of(choice, "token_ids"));
    TRY(problem_.done());
    if (echoed) split_prompt();
    return std::move(out_);
  }

 private:
  void read_text(JsonFields& choice) {
    if (!choice.has("message")) {
      out_.text = choice.text("text", "");
      return;
    }
    JsonFields message = choice.object("message");
    out_.text = message.text("content", "");
    for (const char* name : {"reasoning_content", "reasoning"})
      if (out_.reasoning.empty()) out_.reasoning = message.text(name, "");
  }

  double log_prob(JsonFields& fields, const char* name, const Json& value) {
    if (!value.is_number()) {
      fields.refuse(name, "must be a number");
      return 0;
    }
    const double v = value.get<double>();
    if (!(v >= kLogProbMin && v <= kLogProbMax)) {
      fields.refuse(name, "is no log-probability");
      return 0;
    }
    return std::clamp(v, kLogProbLeast, 0.0);
  }

  std::vector<int32_t> ids_of(JsonFields& fields, const char* name) {
    std::vector<int32_t> ids;
    for (const Json& id : fields.list(name)) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
        fields.refuse(name, "must be a list of token ids");
        return {};
      }
      ids.push_back(id.get<int32_t>());
    }
    return ids;
  }

  /// Pieces of characters are all shown as U+FFFD, some servers give its bytes for theirs, and vocabularies
  /// have a token for it, too: which one is meant, nobody knows.
  static void forget_unknown(NamedToken& t) {
    if (t.text.find("\xef\xbf\xbd") != std::string::npos) t.text.clear();
  }

  /// "token_id:17" is how vLLM names a token where it is asked for ids.
  static NamedToken named(std::string text) {
    constexpr std::string_view kPrefix = "token_id:";
    NamedToken t{.id = {}, .text = std::move(text), .log_prob = {}};
    forget_unknown(t);
    if (!t.text.starts_with(kPrefix)) return t;
    int32_t id = 0;
    const char* const begin = t.text.data() + kPrefix.size();
    const char* const end = t.text.data() + t.text.size();
    if (const auto [at, error] = std::from_chars(begin, end, id);
        error == std::errc() && at == end && id >= 0) {
      t.id = id;
      t.text.clear();
    }
    return t;
  }

  /// An entry of chat's "content" list, or of its "top_logprobs".
  NamedToken named(JsonFields& fields) {
    NamedToken t = named(fields.text("token"));
    if (fields.has("id")) t.id = static_cast<int32_t>(fields.integer("id", 0, INT32_MAX));
    if (fields.has("bytes")) {
      t.text.clear();
      for (const Json& byte : fields.list("bytes")) {
        if (!byte.is_number_integer() || byte.get<int64_t>() < 0 || byte.get<int64_t>() > 255) {
          fields.refuse("bytes", "must be a list of bytes");
          break;
        }
        t.text.push_back(static_cast<char>(byte.get<int64_t>()));
      }
      forget_unknown(t);
    }
    t.log_prob = log_prob(fields, "logprob", fields.at("logprob"));
    return t;
  }

  void read_log_probs(JsonFields fields) {
    if (fields.has("content")) return read_content(fields);
    if (!fields.has("tokens")) return;  // "logprobs": {} of a server that gives none
    const std::vector<std::string> tokens = fields.texts("tokens");
    const Json& values = fields.list("token_logprobs");
    const Json empty = Json::array();
    const Json& tops = fields.has("top_logprobs") ? fields.list("top_logprobs") : empty;
    if (!problem_ &&
        (values.size() != tokens.size() || (!tops.empty() && tops.size() != tokens.size())))
      fields.refuse("token_logprobs", "must have an entry for each token");
    for (size_t i = 0; i < tokens.size() && !problem_; ++i) {
      AnswerToken t{.chosen = named(tokens[i]), .top = {}};
      if (!values[i].is_null()) t.chosen.log_prob = log_prob(fields, "token_logprobs", values[i]);
      if (!tops.empty() && tops[i].is_object())
        for (const auto& [text, value] : tops[i].items()) {
          t.top.push_back(named(text));
          t.top.back().log_prob = log_prob(fields, "top_logprobs", value);
        }
      out_.tokens.push_back(std::move(t));
    }
  }

  void read_content(JsonFields& fields) {
    const Json& content = fields.list("content");
    for (size_t i = 0; i < content.size() && !problem_; ++i) {
      JsonFields entry = fields.item("content", content[i], i);
      AnswerToken t{.chosen = named(entry), .top = {}};
      if (entry.has("top_logprobs")) {
        const Json& top = entry.list("top_logprobs");
        for (size_t k = 0; k < top.size() && !problem_; ++k) {
          JsonFields other = entry.item("top_logprobs", top[k], k);
          t.top.push_back(named(other));
        }
      }
      out_.tokens.push_back(std::move(t));
    }
  }

  /// vLLM's: for each token of the prompt null, or {"id": {"logprob": .., ..}, ..}.
  void read_prompt_log_probs(JsonFields& fields) {
    const Json& list = fields.list("prompt_logprobs");
    for (size_t i = 0; i < list.size() && !problem_; ++i) {
      AnswerToken t;
      if (!list[i].is_null() && !list[i].is_object())
        fields.refuse("prompt_logprobs", "must be a list of objects");
      if (list[i].is_object())
        for (const auto& [name, value] : list[i].items()) {
          NamedToken n = named("token_id:" + name);
          if (!n.id || !value.is_object()) {
            fields.refuse("prompt_logprobs", "must name tokens by their ids");
            break;
          }
          JsonFields entry = fields.item("prompt_logprobs", value, i);
          n.log_prob = log_prob(entry, "logprob", entry.at("logprob"));
          t.top.push_back(std::move(n));
        }
      out_.prompt.push_back(std::move(t));
    }
  }

  void name_tokens(const std::vector<int32_t>& ids) {
    if (out_.tokens.empty()) out_.tokens.resize(ids.size());
    if (out_.tokens.size() != ids.size()) return;  // of another part than the log-probabilities
    for (size_t i = 0; i < ids.size(); ++i) out_.tokens[i].chosen.id = ids[i];
  }

  /// The tokens of an answer that repeats its prompt are the prompt's, then the answer's.
  void split_prompt() {
    if (!out_.prompt.empty() || !out_.answer_tokens) return;
    const int64_t own = std::ssize(out_.tokens) - *out_.answer_tokens;
    if (own <= 0) return;
    out_.prompt.assign(std::make_move_iterator(out_.tokens.begin()),
                       std::make_move_iterator(out_.tokens.begin() + own));
    out_.tokens.erase(out_.tokens.begin(), out_.tokens.begin() + own);
  }

  JsonProblem problem_;
  JsonFields body_;
  ServerAnswer out_;
};

}  // namespace

Result<ServerAnswer> read_answer(std::string_view body, const std::string& where, bool echoed) {
  TRY_ASSIGN(const Json json, parse(body, where));
  return Reader(json, where).read(echoed);
}

Result<std::vector<std::string>> read_models(std::string_view body, const std::string& where) {
  TRY_ASSIGN(const Json json, parse(body, where));
  JsonProblem problem{.code = Code::kUnavailable, .advice = "", .status = {}};
  JsonFields fields(json, where, problem);
  std::vector<std::string> names;
  const Json& list = fields.list("data");
  for (size_t i = 0; i < list.size() && !problem; ++i)
    names.push_back(fields.item("data", list[i], i).text("id"));
  TRY(problem.done());
  return names;
}

Result<std::vector<int32_t>> read_tokens(std::string_view body, const std::string& where) {
  TRY_ASSIGN(const Json json, parse(body, where));
  JsonProblem problem{.code = Code::kUnavailable, .advice = "", .status = {}};
  JsonFields fields(json, where, problem);
  std::vector<int32_t> ids;
  for (const Json& id : fields.list("tokens")) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
      fields.refuse("tokens", "must be a list of token ids");
      break;
    }
    ids.push_back(id.get<int32_t>());
  }
  TRY(problem.done());
  return ids;
}

std::string error_of(std::string_view body) {
  const Result<Json> json = parse_json(body, "");
  if (json && json->is_object()) {
    for (const char* name : {"error", "message", "detail"}) {
      const auto it = json->find(name);
      if (it == json->end()) continue;
      if (it->is_string()) return printable(it->get_ref<const std::string&>());
      if (it->is_object() && it->contains("message") && (*it)["message"].is_string())
        return printable((*it)["message"].get_ref<const std::string&>());
      return printable(json_text(*it));
    }
  }
  return printable(body);
}

}  // namespace ferry::verify
