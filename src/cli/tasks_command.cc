#include "cli/tasks_command.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/counted.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/command.h"
#include "rl/task_makers.h"

namespace ferry::cli {
namespace {

constexpr int64_t kTries = 20;  // for each task

struct Arguments {
  std::string kind, out;
  std::vector<std::string> without;
  int64_t count = 1000, first = 0, difficulty = 2;
  uint64_t seed = 1;
  bool solutions = false;
  std::string instruction;
};

/// The task as a conversation: the instruction and what is asked, as a user would put it.
void put_to(rl::Task& task, const std::string& instruction) {
  const std::string asked = task.prompt.substr(0, task.prompt.find_last_not_of('\n') + 1);
  task.messages = json_text(nlohmann::ordered_json::array(
      {{{"role", "user"}, {"content", instruction + "\n\n" + asked}}}));
  task.prompt.clear();
}

Result<void> make(const Arguments& args) {
  print_besides();
  if (args.solutions && !args.instruction.empty())
    return fail(Code::kInvalidInput,
                "--solutions are of tasks that are texts, and --instruction makes conversations: "
                "leave one of them out");
  TRY_ASSIGN(const bool there, is_there(args.out));
  if (there)
    return fail(
        Code::kInvalidInput, "{}: is there already; remove it, or give another --out", args.out);
  std::set<std::string> elsewhere;
  for (const std::string& path : args.without) {
    TRY_ASSIGN(const std::vector<rl::Task> tasks, rl::read_tasks(path));
    for (const rl::Task& t : tasks) elsewhere.insert(rl::question_of(t));
  }
  std::string lines;
  int64_t made = 0;
  for (int64_t number = args.first; made < args.count; ++number) {
    if (number - args.first > kTries * args.count)
      return fail(
          Code::kInvalidInput,
          "{} of {} tasks are in none of the files of --without, and there are hardly more; "
          "ask for fewer, or for a higher --difficulty",
          made,
          args.count);
    rl::Task t = rl::make_tasks(args.kind, args.seed, args.difficulty, number, 1).front();
    if (elsewhere.contains(rl::question_of(t))) continue;
    if (!args.instruction.empty()) put_to(t, args.instruction);
    if (!args.solutions) t.solution.clear();
    lines += rl::to_json_line(t, args.solutions) + "\n";
    ++made;
  }
  TRY(write_file_atomic(args.out, lines));
  fmt::print("{}: {}\n", args.out, counted(args.count, "task"));
  return printed_besides(flush_output());
}

}  // namespace

void add_tasks_command(Command& program) {
  Command command = program.add("tasks", "Make tasks whose answers can be checked, as JSON lines");
  const auto args = std::make_shared<Arguments>();
  command.option("kind", args->kind, "sum, countdown, sort or maze")
      .required()
      .among(rl::task_kinds());
  command.option("--out", args->out, "the new file").required();
  command.option("--count", args->count, "so many tasks")
      .within(int64_t{1}, int64_t{10'000'000})
      .shows_default();
  command
      .option(
          "--first", args->first, "the number of the first: sets of one seed are kept apart by it")
      .within(int64_t{0}, int64_t{1} << 40)
      .shows_default();
  command
      .option(
          "--without",
          args->without,
          "a file of tasks: nothing that one of them asks, whatever the instruction before it, is "
          "asked again; may be given several times")
      .once_per_value();
  command.option("--seed", args->seed, "other tasks").shows_default();
  command.option("--difficulty", args->difficulty, "digits, numbers or squares more")
      .within(int64_t{1}, rl::kDifficultyMax)
      .shows_default();
  command.flag("--solutions",
               args->solutions,
               "with a solution each, and \"text\" for ferry data prepare: the prompt and the "
               "solution");
  command
      .option("--instruction",
              args->instruction,
              "tasks are conversations, in which a user says this before what is asked: for "
              "models that chat")
      .any_text();
  command.runs([args] { return report(make(*args)); });
}

}  // namespace ferry::cli
