#include "cli/score_command.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/answer_options.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "rl/score.h"

namespace ferry::cli {
namespace {

struct Arguments {
  OpenOptions open;
  std::string tasks, out;
  AnswerOptions answers;
  int64_t samples = 1, running = 64, count = 0;
  rl::ProgramJudgeOptions program;
};

void print_row(const std::string& name, const rl::ScoreSummary& s, int64_t samples) {
  std::string line = fmt::format("{:<20} {:>6} tasks  pass@1 {:5.1f} % ({:.1f} to {:.1f})",
                                 name,
                                 s.tasks,
                                 100 * s.pass_at_1,
                                 100 * s.interval.low,
                                 100 * s.interval.high);
  if (samples > 1)
    line += fmt::format(
        "  pass@{} {:5.1f} %  vote {:5.1f} %", samples, 100 * s.pass_at_k, 100 * s.voted);
  line += fmt::format("  {:.1f} tokens, {:.1f} of thought; {:.0f} % ended\n",
                      s.mean_tokens,
                      s.mean_thought_tokens,
                      100 * s.ended);
  fmt::print("{}", line);
}

/// By kind and difficulty, where there are several, then all of them.
void print_rows(const std::vector<rl::Task>& tasks,
                const std::vector<rl::TaskScore>& scores,
                int64_t samples) {
  std::map<std::pair<std::string, int64_t>, std::vector<rl::TaskScore>> by;
  for (size_t t = 0; t < tasks.size(); ++t)
    by[{tasks[t].kind, tasks[t].difficulty}].push_back(scores[t]);
  if (by.size() > 1)
    for (const auto& [name, of] : by)
      print_row(
          fmt::format("{} {}", name.first.empty() ? "tasks" : printable(name.first), name.second),
          rl::summary(of, samples),
          samples);
  print_row("all", rl::summary(scores, samples), samples);
}

Result<void> write_lines(const std::string& path,
                         const std::vector<rl::TaskScore>& scores,
                         int64_t samples) {
  std::string lines;
  for (size_t t = 0; t < scores.size(); ++t)
    lines += json_text(nlohmann::ordered_json{{"task", t},
                                              {"samples", samples},
                                              {"right", scores[t].right},
                                              {"tokens", scores[t].tokens},
                                              {"first_answer", scores[t].sample}}) +
             "\n";
  return write_file_atomic(path, lines);
}

Result<void> score(const Arguments& args) {
  TRY(check_answer_options(args.answers));
  if (!args.out.empty()) {
    TRY_ASSIGN(const bool there, is_there(args.out));
    if (there)
      return fail(
          Code::kInvalidInput, "{}: is there already; remove it, or give another --out", args.out);
  }
  TRY_ASSIGN(std::vector<rl::Task> tasks, rl::read_tasks(args.tasks));
  if (args.count > 0 && std::ssize(tasks) > args.count)
    tasks.resize(static_cast<size_t>(args.count));
  std::optional<rl::ProgramJudge> program;
  if (!args.program.command.empty()) {
    TRY_ASSIGN(program, rl::ProgramJudge::create(args.program));
  }
  TRY_ASSIGN(const rl::Judge judge, rl::Judge::create(std::move(program), tasks, args.tasks));
  TRY_ASSIGN(const OpenedModel m, open_model(args.open));
  TRY_ASSIGN(const std::vector<rl::TaskPrompt> prompts,
             rl::prompts_of(tasks, m.texts, args.open.directory));
  int64_t longest = 0;
  for (const rl::TaskPrompt& p : prompts) longest = std::max(longest, std::ssize(p.ids));
  const int64_t each =
      std::min(longest + args.answers.generate.tokens_max, m.model->max_positions());
  engine::Engine engine(*m.model, engine_options(args.answers, *m.model, args.running, each));
  TRY(require_cache(engine, *m.model));
  rl::ScoreOptions options{.samples = args.samples,
                           .seed = args.answers.generate.sampling.seed,
                           .rollouts = {args.answers.generate, args.answers.stop, {}}};
  ProgressLine line;
  const double begin = system_clock().monotonic_s();
  options.rollouts.on_pass = [&](int64_t done) {
    line.show([&] {
      return fmt::format("{} of {} answers, {:.1f} tokens/s",
                         done,
                         std::ssize(tasks) * args.samples,
                         static_cast<double>(engine.counts().tokens_answered) /
                             (system_clock().monotonic_s() - begin));
    });
    return true;
  };
  TRY_ASSIGN(const std::vector<rl::TaskScore> scores,
             rl::score(engine, tasks, prompts, m.texts, judge, options));
  line.clear();
  const double seconds = system_clock().monotonic_s() - begin;
  if (!args.out.empty()) TRY(write_lines(args.out, scores, args.samples));
  print_rows(tasks, scores, args.samples);
  const rl::ScoreSummary s = rl::summary(scores, args.samples);
  return print_json({{"tasks", s.tasks},
                     {"pass_at_1", s.pass_at_1},
                     {"ci_low", s.interval.low},
                     {"ci_high", s.interval.high},
                     {"mean_tokens", s.mean_tokens},
                     {"samples", args.samples},
                     {"pass_at_k", s.pass_at_k},
                     {"majority", s.voted},
                     {"mean_thought_tokens", s.mean_thought_tokens},
                     {"ended", s.ended},
                     {"seconds", seconds}});
}

}  // namespace

void add_score_command(Command& program) {
  Command command =
      program.add("score", "How good a model is at tasks whose answers can be checked");
  const auto args = std::make_shared<Arguments>();
  args->answers.generate.sampling.temperature = 1;
  args->answers.generate.sampling.seed = 1;
  add_open_options(command, args->open);
  command.option("tasks", args->tasks, "tasks as JSON lines (docs/reasoning.md)").required();
  command.option("--samples", args->samples, "answers to each task; more than one: pass@k, votes")
      .within(int64_t{1}, int64_t{1024})
      .shows_default();
  command.option("--count", args->count, "the first so many tasks alone; 0: all")
      .within(int64_t{0}, int64_t{1} << 40);
  command.option("--running", args->running, "answers that are computed at once")
      .within(int64_t{1}, int64_t{256})
      .shows_default();
  command.option("--out", args->out, "a new file: a line for each task, with its first answer");
  command.option("--program",
                 args->program.command,
                 "command that judges answers to tasks whose check is \"program\", in a sandbox");
  command.option("--program-folder", args->program.folder, "what it needs: it finds it as /judge");
  command.option("--program-seconds", args->program.seconds, "that it may take for an answer")
      .within(0.1, 86400.0)
      .shows_default();
  command
      .option("--program-memory-mb", args->program.memory_mb, "that each of its processes may take")
      .within(int64_t{16}, int64_t{1} << 20)
      .shows_default();
  add_answer_options(command, args->answers);
  command.runs([args] { return report(score(*args)); });
}

}  // namespace ferry::cli
