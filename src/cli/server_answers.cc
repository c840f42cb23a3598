#include "cli/server_answers.h"

#include <algorithm>
#include <nlohmann/json.hpp>

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

Result<rl::Answer> answer_of(verify::ServerAnswer said, const std::string& address) {
  if (!said.answer_tokens)
    return fail(Code::kUnavailable,
                "{}: does not say how many tokens an answer has (usage.completion_tokens)",
                address);
  if (!said.reasoning.empty())
    said.text = "<think>\n" + said.reasoning + "\n</think>\n" + said.text;
  // A thought that only ends was opened by the prompt, which is the server's.
  const size_t opened = said.text.find("<think>"), closed = said.text.find("</think>");
  const bool thinking = closed != std::string::npos && opened > closed;
  return rl::Answer{.parts = rl::take_apart(said.text, thinking),
                    .text = said.text,
                    .tokens = *said.answer_tokens,
                    .thought_tokens = {},
                    .ended = said.finish == "stop"};
}

}  // namespace

Result<std::vector<rl::Answer>> ask_server(std::span<const rl::Task> tasks,
                                           const ServerQuestions& questions,
                                           const std::function<void(int64_t)>& progress) {
  TRY_ASSIGN(verify::HttpClient http,
             verify::HttpClient::open(questions.address, {.timeout_ms = questions.timeout_ms}));
  TRY_ASSIGN(verify::ServerClient server,
             verify::ServerClient::open(std::move(http), questions.model, questions.key));
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
  std::vector<rl::Answer> answers;
  while (answers.size() < asks.size()) {
    const size_t round =
        std::min(static_cast<size_t>(questions.at_once), asks.size() - answers.size());
    for (Result<verify::ServerAnswer>& said :
         server.ask_together(std::span(asks).subspan(answers.size(), round))) {
      if (!said) return tl::unexpected(said.error());
      TRY_ASSIGN(rl::Answer answer, answer_of(*std::move(said), server.address()));
      answers.push_back(std::move(answer));
    }
    progress(std::ssize(answers));
  }
  return answers;
}

}  // namespace ferry::cli
