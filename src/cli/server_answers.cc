#include "cli/server_answers.h"

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/json.h"
#include "verify/server_client.h"

namespace ferry::cli {
namespace {

constexpr uint64_t kSeedMax = (uint64_t{1} << 31) - 1;  // some servers take no more

Result<verify::Ask> question(const rl::Task& task, const verify::ServerClient& server) {
  verify::Ask ask{.prompt = task.prompt, .log_probs = false};
  if (task.messages.empty() && server.completes()) return ask;
  if (!server.chats())
    return fail(Code::kInvalidInput,
                "{}: takes no conversations (/v1/chat/completions), and there are tasks that are; "
                "give tasks with \"prompt\"",
                server.address());
  ask.chat = true;
  ask.prompt =
      task.messages.empty()
          ? json_text(nlohmann::ordered_json::array({{{"role", "user"}, {"content", task.prompt}}}))
          : task.messages;
  return ask;
}

/// How long in a row a busy server may answer nothing of what it is asked: more than limits that are counted by the
/// minute.
constexpr double kPatienceS = 150;
constexpr int kCleanRounds = 4;  // before it is asked for more

/// What the server said to each question, and why the first did not come that did not.
struct Said {
  std::vector<std::optional<verify::ServerAnswer>> answers;
  std::optional<Status> why_not;
};

/// A server that is too busy is asked for less at once, after a while, and for more again when it answers all.
Said ask_all(verify::ServerClient& server,
             std::span<const verify::Ask> asks,
             int64_t at_once,
             const std::function<void(int64_t)>& progress) {
  Said said{.answers = std::vector<std::optional<verify::ServerAnswer>>(asks.size()),
            .why_not = {}};
  const int64_t most = at_once;
  int clean_rounds = 0;
  std::deque<size_t> left(asks.size());
  std::iota(left.begin(), left.end(), 0);
  while (!left.empty()) {
    const std::vector<size_t> round(left.begin(),
                                    left.begin() + std::min<int64_t>(at_once, std::ssize(left)));
    left.erase(left.begin(), left.begin() + std::ssize(round));
    std::vector<verify::Ask> asked;
    for (const size_t i : round) asked.push_back(asks[i]);
    std::vector<verify::ServerClient::Attempt> attempts = server.attempt_together(asked);
    std::vector<size_t> again;
    std::optional<Status> why_again;
    bool busy = false;  // of that
    std::optional<double> retry_after_s;
    for (size_t r = 0; r < round.size(); ++r) {
      verify::ServerClient::Attempt& attempt = attempts[r];
      if (attempt.answer) {
        said.answers[round[r]] = *std::move(attempt.answer);
      } else if (attempt.may_pass) {
        again.push_back(round[r]);
        if (!why_again) {
          why_again = attempt.answer.error();
          busy = attempt.busy;
        }
        retry_after_s = std::max(retry_after_s, attempt.retry_after_s);
      } else if (!said.why_not) {
        said.why_not = attempt.answer.error();
      }
    }
    if (said.why_not) return said;
    left.insert(left.begin(), again.begin(), again.end());
    progress(std::ssize(asks) - std::ssize(left));
    if (again.size() < round.size()) server.patience().answered();
    if (again.empty()) {
      if (++clean_rounds % kCleanRounds == 0) at_once = std::min(most, 2 * at_once);
      continue;
    }
    if (!server.patience().wait(retry_after_s)) {
      if (busy) why_again->message += server.patience().told();
      said.why_not = why_again;
      return said;
    }
    clean_rounds = 0;
    at_once = std::max<int64_t>(1, std::ssize(round) / 2);
  }
  return said;
}

/// What a server keeps apart is the thought, whatever marks stand in it. Of others' it is known by its marks;
/// `opened`: where there are none, the prompt has opened one that did not end.
rl::AnswerParts parts_of(const verify::ServerAnswer& said, bool opened) {
  if (said.reasoning.empty()) {
    const size_t open = said.text.find("<think>"), closed = said.text.find("</think>");
    return rl::take_apart(said.text, closed < open || (opened && open == closed));
  }
  rl::AnswerParts parts = rl::take_apart("</think>" + said.text, true);
  parts.thought = said.reasoning;
  return parts;
}

Result<ServerAnswers> answers_of(const Said& said, const std::string& address) {
  std::vector<std::string_view> whole;  // with their thoughts, if they have any
  std::vector<bool> ended;
  for (const std::optional<verify::ServerAnswer>& a : said.answers) {
    if (!a || !a->reasoning.empty()) continue;
    whole.push_back(a->text);
    ended.push_back(a->finish == "stop");
  }
  const bool opened = rl::seem_to_think(whole, ended);
  ServerAnswers all{.answers = {}, .why_not = said.why_not};
  for (const std::optional<verify::ServerAnswer>& came : said.answers) {
    if (!came) {
      all.answers.emplace_back();
      continue;
    }
    const verify::ServerAnswer& a = *came;
    if (!a.answer_tokens)
      return fail(Code::kUnavailable,
                  "{}: does not say how many tokens an answer has (usage.completion_tokens)",
                  address);
    all.answers.push_back(rl::Answer{
        .parts = parts_of(a, opened),
        .text = a.reasoning.empty() ? a.text : "<think>\n" + a.reasoning + "\n</think>\n" + a.text,
        .tokens = *a.answer_tokens,
        .thought_tokens = {},
        .ended = a.finish == "stop"});
  }
  return all;
}

}  // namespace

Result<ServerAnswers> ask_server(std::span<const rl::Task> tasks,
                                 const ServerQuestions& questions,
                                 const std::function<void(int64_t)>& progress) {
  TRY_ASSIGN(verify::HttpClient http,
             verify::HttpClient::open(questions.address, {.timeout_ms = questions.timeout_ms}));
  TRY_ASSIGN(verify::ServerClient server,
             verify::ServerClient::open(
                 std::move(http), questions.model, questions.key, verify::Patience(kPatienceS)));
  std::vector<verify::Ask> asks;
  for (size_t t = 0; t < tasks.size(); ++t) {
    TRY_ASSIGN(verify::Ask ask, question(tasks[t], server));
    ask.tokens = questions.tokens_max;
    ask.temperature = questions.temperature;
    for (int64_t s = 0; s < questions.samples; ++s) {
      ask.seed = rl::answer_seed(questions.seed, t, s) & kSeedMax;
      asks.push_back(ask);
    }
  }
  return answers_of(ask_all(server, asks, questions.at_once, progress), server.address());
}

}  // namespace ferry::cli
