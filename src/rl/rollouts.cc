#include "rl/rollouts.h"

#include <map>

#include "checkpoint/model_chat.h"
#include "engine/generate.h"
#include "text/answer_text.h"

namespace ferry::rl {

Result<std::vector<TaskPrompt>> prompts_of(std::span<const Task> tasks,
                                           const ModelTexts& texts,
                                           const std::string& directory,
                                           const Moment& now) {
  const text::AnswerSyntax syntax = answer_syntax(texts);
  std::vector<TaskPrompt> prompts;
  for (const Task& task : tasks) {
    TaskPrompt p;
    if (!task.messages.empty()) {
      const std::string where = fmt::format("task {}", prompts.size() + 1);
      TRY_ASSIGN(ChatPrompt chat, render_chat(texts, task.messages, where, directory, now));
      p.thinking = text::begins_thinking(syntax, chat.text);
      p.ids = std::move(chat.ids);
    } else {
      TRY_ASSIGN(p.ids, texts.prompt(task.prompt, text::Tokenizer::Specials::kAsText, directory));
    }
    prompts.push_back(std::move(p));
  }
  return prompts;
}

bool are_dated(std::span<const Task> tasks,
               std::span<const TaskPrompt> prompts,
               const ModelTexts& texts,
               const Moment& now) {
  for (size_t t = 0; t < tasks.size(); ++t) {
    if (tasks[t].messages.empty()) continue;
    const auto later = prompts_of(tasks.subspan(t, 1), texts, "", now.another_day());
    return !later || (*later)[0].ids != prompts[t].ids;
  }
  return false;
}

Result<std::vector<Rollout>> roll_out(engine::Engine& engine,
                                      std::span<const RolloutRequest> requests,
                                      const ModelTexts& texts,
                                      const RolloutOptions& options) {
  // As many as the engine may run, and as many again: it is never idle for want of requests.
  constexpr int64_t kWaitingMax = 256;
  struct Asked {
    size_t index;
    text::AnswerText text;
  };
  const std::vector<int32_t> marks = answer_syntax(texts).marks;
  std::map<engine::RequestId, Asked> asked;
  std::vector<Rollout> rollouts(requests.size());
  size_t next = 0;
  int64_t done = 0;
  while (next < requests.size() || !engine.idle()) {
    while (next < requests.size() && engine.waiting() < kWaitingMax) {
      engine::Request r{
          .prompt = requests[next].prompt->ids, .options = options.generate, .salt = ""};
      r.options.end_tokens = texts.eos;
      r.options.sampling.seed = requests[next].seed;
      TRY_ASSIGN(const engine::RequestId id, engine.submit(std::move(r)));
      asked.emplace(id, Asked{next++, text::AnswerText(*texts.tokenizer, options.stop, marks)});
    }
    for (const engine::Progress& p : engine::step_through_faults(engine)) {
      const auto it = asked.find(p.id);
      if (it == asked.end()) continue;
      if (p.finish == engine::Finish::kFailed) return tl::unexpected(p.error);
      auto& [index, text] = it->second;
      Rollout& r = rollouts[index];
      const auto keep = [&](const engine::Token& t) {
        r.tokens.push_back(t.id);
        if (options.generate.top_log_probs) r.log_probs.push_back(t.log_prob);
      };
      for (const engine::Token& t : p.tokens) {
        if (text.stopped()) break;
        keep(t);
        r.text += text.push(t.id);
      }
      const bool stopped = text.stopped();
      if (p.end && !stopped) keep(*p.end);
      if (p.finish == engine::Finish::kNone && !stopped) continue;
      if (p.finish == engine::Finish::kNone) engine.cancel(p.id);
      r.finish = stopped ? engine::Finish::kNone : p.finish;
      r.text += text.flush();
      asked.erase(it);
      ++done;
    }
    if (options.on_pass && !options.on_pass(done)) {
      for (const auto& [id, of] : asked) engine.cancel(id);
      return fail(Code::kTimeout, "stopped while {} answers were underway", asked.size());
    }
  }
  return rollouts;
}

}  // namespace ferry::rl
