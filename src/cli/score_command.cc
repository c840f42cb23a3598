#include "cli/score_command.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <utility>

#include "base/calendar.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/answer_options.h"
#include "cli/api_key.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/server_answers.h"
#include "rl/score.h"

namespace ferry::cli {
namespace {

struct Arguments {
  OpenOptions open;
  std::string tasks, out, ks, date = "2026-01-01";
  AnswerOptions answers;
  int64_t samples = 1, running = 64, count = 0;
  rl::ProgramJudgeOptions program;
  ServerQuestions server;
  std::string key_file;
  double timeout_s = 120;
};

/// "1,4,16"; not given: the samples, if there are several.
Result<std::vector<int64_t>> ks_of(const std::string& text, int64_t samples) {
  if (text.empty()) return samples > 1 ? std::vector<int64_t>{samples} : std::vector<int64_t>();
  std::vector<int64_t> ks;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    int64_t k = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + comma, k);
    const bool is_number = error == std::errc() && end == rest.data() + comma;
    if (!is_number || k < 1 || k > samples || (!ks.empty() && k <= ks.back()) ||
        comma + 1 == rest.size())
      return fail(
          Code::kInvalidInput,
          "--k is {}; it must be numbers from 1 to --samples ({}) that ascend, as in 1,4,16",
          printable(text),
          samples);
    ks.push_back(k);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return ks;
}

void print_row(const std::string& name, const rl::ScoreSummary& s, int64_t samples) {
  std::string line = fmt::format("{:<20} {:>6} tasks  pass@1 {:5.1f} % ({:.1f} to {:.1f})",
                                 name,
                                 s.tasks,
                                 100 * s.pass_at_1,
                                 100 * s.interval.low,
                                 100 * s.interval.high);
  for (const rl::PassAt& at : s.pass_at)
    line += fmt::format("  pass@{} {:5.1f} % ({:.1f} to {:.1f})",
                        at.k,
                        100 * at.share,
                        100 * at.interval.low,
                        100 * at.interval.high);
  if (samples > 1) line += fmt::format("  vote {:5.1f} %", 100 * s.voted);
  line += fmt::format("  {:.1f} tokens", s.mean_tokens);
  if (s.mean_thought_tokens) line += fmt::format(", {:.1f} of thought", *s.mean_thought_tokens);
  fmt::print("{}; {:.0f} % ended\n", line, 100 * s.ended);
}

/// Scores by kind and difficulty.
using Groups = std::map<std::pair<std::string, int64_t>, std::vector<rl::TaskScore>>;

Groups groups_of(const std::vector<rl::Task>& tasks, const std::vector<rl::TaskScore>& scores) {
  Groups by;
  for (size_t t = 0; t < tasks.size(); ++t)
    by[{tasks[t].kind, tasks[t].difficulty}].push_back(scores[t]);
  return by;
}

/// What a row of the table and the last line say.
nlohmann::ordered_json json_of(const rl::ScoreSummary& s) {
  nlohmann::ordered_json j = {{"tasks", s.tasks},
                              {"pass_at_1", s.pass_at_1},
                              {"ci_low", s.interval.low},
                              {"ci_high", s.interval.high},
                              {"mean_tokens", s.mean_tokens}};
  if (s.mean_thought_tokens) j["mean_thought_tokens"] = *s.mean_thought_tokens;
  j["majority"] = s.voted;
  j["ended"] = s.ended;
  j["pass_at"] = nlohmann::ordered_json::object();
  for (const rl::PassAt& at : s.pass_at)
    j["pass_at"][std::to_string(at.k)] = {
        {"share", at.share}, {"ci_low", at.interval.low}, {"ci_high", at.interval.high}};
  return j;
}

/// A line for each task; `numbers`: theirs in the file.
Result<void> write_lines(const std::string& path,
                         std::span<const rl::Task> tasks,
                         std::span<const size_t> numbers,
                         const std::vector<rl::TaskScore>& scores,
                         int64_t samples) {
  std::string lines;
  for (size_t t = 0; t < scores.size(); ++t)
    lines += json_text(nlohmann::ordered_json{{"task", numbers[t]},
                                              {"kind", tasks[t].kind},
                                              {"difficulty", tasks[t].difficulty},
                                              {"samples", samples},
                                              {"right", scores[t].right},
                                              {"tokens", scores[t].tokens},
                                              {"first_answer", scores[t].sample}}) +
             "\n";
  return write_file_atomic(path, lines);
}

Result<rl::Scores> score_model(const Arguments& args,
                               std::span<const rl::Task> tasks,
                               const rl::Judge& judge) {
  const std::optional<Moment> noon = noon_of(args.date);
  if (!noon)
    return fail(Code::kInvalidInput,
                "--date is {}; it must be a day, written as 2026-11-30",
                printable(args.date));
  TRY_ASSIGN(const OpenedModel m, open_model(args.open));
  TRY_ASSIGN(const std::vector<rl::TaskPrompt> prompts,
             rl::prompts_of(tasks, m.texts, args.open.directory, *noon));
  if (rl::are_dated(tasks, prompts, m.texts, *noon))
    tell(fmt::format("ferry: note: the chat template asks for the date: it is told {} (--date)",
                     args.date));
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
  Result<rl::Scores> scores = rl::score(engine, tasks, prompts, m.texts, judge, options);
  line.clear();
  return scores;
}

/// What a server is not asked for, because not every one can be, or because it is the server's own affair.
Result<void> check_for_server(const Arguments& args) {
  const engine::SamplingOptions& s = args.answers.generate.sampling;
  const OpenOptions usual;
  const std::pair<const char*, bool> given[] = {{"--device", args.open.device != usual.device},
                                                {"--dtype", !args.open.dtype.empty()},
                                                {"--adapter", !args.open.adapter.empty()},
                                                {"--quantize", !args.open.quantize.empty()},
                                                {"--top-p", s.top_p != 1},
                                                {"--top-k", s.top_k != 0},
                                                {"--min-p", s.min_p != 0},
                                                {"--repetition-penalty", s.repetition_penalty != 1},
                                                {"--presence-penalty", s.presence_penalty != 0},
                                                {"--frequency-penalty", s.frequency_penalty != 0},
                                                {"--stop", !args.answers.stop.empty()},
                                                {"--draft", args.answers.drafts != 0},
                                                {"--cache-tokens", args.answers.cache_tokens != 0},
                                                {"--date", args.date != Arguments().date}};
  for (const auto& [name, is] : given)
    if (is) return fail(Code::kInvalidInput, "{} does not go with --server; leave it out", name);
  return {};
}

Result<rl::Scores> score_server(const Arguments& args,
                                std::span<const rl::Task> tasks,
                                const rl::Judge& judge) {
  ServerQuestions questions = args.server;
  if (!args.key_file.empty()) {
    TRY_ASSIGN(questions.key, read_api_key(args.key_file));
  }
  questions.timeout_ms = static_cast<int64_t>(args.timeout_s * 1000);
  questions.samples = args.samples;
  questions.at_once = args.running;
  questions.tokens_max = args.answers.generate.tokens_max;
  questions.temperature = args.answers.generate.sampling.temperature;
  questions.seed = args.answers.generate.sampling.seed;
  ProgressLine line;
  const Result<ServerAnswers> answers = ask_server(tasks, questions, [&](int64_t done) {
    line.show(
        [&] { return fmt::format("{} of {} answers", done, std::ssize(tasks) * args.samples); });
  });
  line.clear();
  if (!answers) return tl::unexpected(answers.error());
  // Tasks all of whose answers came.
  std::vector<rl::Task> answered;
  std::vector<size_t> numbers;
  std::vector<rl::Answer> came;
  const auto each = static_cast<size_t>(args.samples);
  for (size_t t = 0; t < tasks.size(); ++t) {
    const auto own = std::span(answers->answers).subspan(t * each, each);
    if (!std::all_of(own.begin(), own.end(), [](const auto& a) { return a.has_value(); })) continue;
    answered.push_back(tasks[t]);
    numbers.push_back(t);
    for (const std::optional<rl::Answer>& a : own) came.push_back(*a);
  }
  if (!answers->why_not) return rl::score_answers(tasks, came, judge, [] { return true; });
  const Status& why = *answers->why_not;
  if (args.out.empty() || answered.empty()) return tl::unexpected(why);
  // What was paid for is not thrown away: who asks again may leave it out.
  TRY_ASSIGN(const rl::Scores scores,
             rl::score_answers(answered, came, judge, [] { return true; }));
  if (scores.programs.is_broken())
    return fail(why.code, "{}; --program: {}", why.message, scores.programs.told());
  TRY(write_lines(args.out, answered, numbers, scores.tasks, args.samples));
  return fail(why.code,
              "{}; {} has the {} of {} tasks whose answers had come{}{}",
              why.message,
              args.out,
              answered.size(),
              tasks.size(),
              scores.programs.failed() > 0 ? "; " : "",
              scores.programs.failed() > 0 ? scores.programs.told() : "");
}

Result<void> score(Arguments& args) {
  const bool of_server = !args.server.address.empty();
  if (of_server && args.tasks.empty()) std::swap(args.tasks, args.open.directory);
  if (of_server && !args.open.directory.empty())
    return fail(Code::kInvalidInput,
                "{}: with --server no model is read here; give the tasks alone",
                printable(args.open.directory));
  if (args.tasks.empty())
    return fail(Code::kInvalidInput, "tasks is required: a file of tasks, behind the model");
  TRY(check_answer_options(args.answers));
  TRY_ASSIGN(const std::vector<int64_t> ks, ks_of(args.ks, args.samples));
  if (of_server) TRY(check_for_server(args));
  if (!args.out.empty()) {
    print_besides();
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
    if (const std::string weak = program->weakness(); !weak.empty()) tell("ferry: note: " + weak);
  }
  TRY_ASSIGN(const rl::Judge judge, rl::Judge::create(std::move(program), tasks, args.tasks));
  const double begin = system_clock().monotonic_s();
  TRY_ASSIGN(const rl::Scores all,
             of_server ? score_server(args, tasks, judge) : score_model(args, tasks, judge));
  const double seconds = system_clock().monotonic_s() - begin;
  const std::vector<rl::TaskScore>& scores = all.tasks;
  if (all.programs.is_broken())
    return fail(Code::kInvalidInput, "--program: no answer was judged: {}", all.programs.told());
  std::vector<size_t> numbers(tasks.size());
  std::iota(numbers.begin(), numbers.end(), 0);
  if (!args.out.empty()) TRY(write_lines(args.out, tasks, numbers, scores, args.samples));
  const Groups by = groups_of(tasks, scores);
  nlohmann::ordered_json by_kind = nlohmann::ordered_json::array();
  for (const auto& [name, of] : by) {
    const rl::ScoreSummary s = rl::summary(of, args.samples, ks);
    nlohmann::ordered_json row = {{"kind", name.first}, {"difficulty", name.second}};
    row.update(json_of(s));
    by_kind.push_back(std::move(row));
    if (by.size() > 1)
      print_row(
          fmt::format("{} {}", name.first.empty() ? "tasks" : printable(name.first), name.second),
          s,
          args.samples);
  }
  const rl::ScoreSummary s = rl::summary(scores, args.samples, ks);
  print_row("all", s, args.samples);
  if (all.programs.failed() > 0) tell("ferry: note: " + all.programs.told());
  nlohmann::ordered_json last = json_of(s);
  last["samples"] = args.samples;
  last["pass_at_k"] =
      rl::summary(scores, args.samples, std::span(&args.samples, 1)).pass_at[0].share;
  last["by_kind"] = std::move(by_kind);
  if (all.programs.judged() > 0) last["program_failed"] = all.programs.failed();
  last["seconds"] = seconds;
  const Result<void> printed = print_json(last);
  return args.out.empty() ? printed : printed_besides(printed);
}

}  // namespace

void add_score_command(Command& program) {
  Command command =
      program.add("score", "How good a model is at tasks whose answers can be checked");
  const auto args = std::make_shared<Arguments>();
  args->answers.generate.sampling.temperature = 1;
  args->answers.generate.sampling.seed = 1;
  add_open_options(command, args->open);
  command.option("tasks",
                 args->tasks,
                 "tasks as JSON lines (docs/reasoning.md); with --server the only argument");
  command.option("--samples", args->samples, "answers to each task; more than one: pass@k, votes")
      .within(int64_t{1}, int64_t{1024})
      .shows_default();
  command.option(
      "--k",
      args->ks,
      "for which k pass@k is told, as in 1,4,16; up to the samples, and without it of them");
  command.option("--count", args->count, "the first so many tasks alone; 0: all")
      .within(int64_t{0}, int64_t{1} << 40);
  command.option("--running", args->running, "answers that are computed at once")
      .within(int64_t{1}, int64_t{256})
      .shows_default();
  command.option("--out", args->out, "a new file: a line for each task, with its first answer");
  command.option("--date", args->date, "the day that a chat template is told that asks for it")
      .shows_default();
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
  const Option server =
      command.option("--server",
                     args->server.address,
                     "score what this OpenAI-compatible server answers (http://HOST:PORT)");
  command.option("--api-key-file", args->key_file, "a file with the server's key").needs(server);
  command
      .option("--model", args->server.model, "the server's name of the model (default: its first)")
      .needs(server);
  command.option("--timeout", args->timeout_s, "seconds that the server has for one answer")
      .within(0.1, 86400.0)
      .shows_default()
      .needs(server);
  add_answer_options(command, args->answers);
  command.runs([args] { return report(score(*args)); });
}

}  // namespace ferry::cli
