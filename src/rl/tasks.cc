#include "rl/tasks.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "base/json_fields.h"
#include "base/ordered_json.h"
#include "data/text_stream.h"
#include "rl/schema_check.h"
#include "rl/solvable.h"
#include "text/limited_regex.h"

namespace ferry::rl {
namespace {

constexpr uint64_t kFileBytesMax = uint64_t{1} << 30;

constexpr std::pair<const char*, Check> kChecks[] = {{"exact", Check::kExact},
                                                     {"number", Check::kNumber},
                                                     {"regex", Check::kRegex},
                                                     {"countdown", Check::kCountdown},
                                                     {"maze", Check::kMaze},
                                                     {"schema", Check::kSchema},
                                                     {"program", Check::kProgram}};

const char* name_of(Check check) {
  return std::find_if(std::begin(kChecks),
                      std::end(kChecks),
                      [&](const auto& c) { return c.second == check; })
      ->first;
}

Check check_named(JsonFields& f) {
  const std::string name = f.text("check", "exact");
  for (const auto& [known, check] : kChecks)
    if (name == known) return check;
  f.refuse("check", "must be exact, number, regex, countdown, maze, schema or program");
  return Check::kExact;
}

/// Rows of one width, with one S and one E.
void check_maze(JsonFields& f, const std::vector<std::string>& maze) {
  std::string all;
  for (const std::string& row : maze) {
    if (row.size() != maze.front().size()) f.refuse("maze", "must have rows of one length");
    all += row;
  }
  const auto times = [&](char c) { return std::count(all.begin(), all.end(), c); };
  if (times('S') != 1 || times('E') != 1 || all.find_first_not_of("#.SE") != std::string::npos)
    f.refuse("maze", "must be of '#' and '.', with one S and one E");
}

/// A JSON schema, as a text and compiled; of one in which an answer could not be right, a problem.
void read_schema(JsonFields& f, const nlohmann::ordered_json& as_written, Task& t) {
  f.at("schema");
  if (f.problem()) return;
  t.answer = json_text(as_written["schema"]);
  auto compiled = SchemaCheck::compile(t.answer);
  if (compiled)
    t.schema = std::make_shared<const SchemaCheck>(*std::move(compiled));
  else
    f.refuse("schema", "cannot be judged by: " + compiled.error().message);
}

/// `as_written`: the same object, in the order of its fields.
Result<Task> read_task(const nlohmann::json& object,
                       const nlohmann::ordered_json& as_written,
                       const std::string& where) {
  JsonProblem problem{.code = Code::kInvalidInput, .advice = "", .status = {}};
  JsonFields f(object, where, problem);
  Task t;
  t.kind = f.text("kind", "");
  t.difficulty = f.integer("difficulty", 0, 1'000'000, 0);
  if (f.has("prompt") == f.has("messages")) f.refuse("", "needs \"prompt\" or \"messages\"");
  t.prompt = f.text("prompt", "");
  if (f.has("messages")) {
    f.list("messages");
    t.messages = json_text(as_written["messages"]);
  }
  t.check = check_named(f);
  if (t.check == Check::kSchema)
    read_schema(f, as_written, t);
  else
    t.answer = f.text("answer",
                      t.check == Check::kProgram ? std::optional<std::string>("") : std::nullopt);
  t.tolerance = f.real("tolerance", 0, 1e300, 0.0);
  t.solution = f.text("solution", "");
  if (t.check == Check::kCountdown) t.numbers = f.integers("numbers", 0, INT64_MAX);
  if (t.check == Check::kMaze) {
    t.maze = f.texts("maze");
    if (!problem) check_maze(f, t.maze);
  }
  if (t.check == Check::kRegex && !problem)
    if (const auto pattern = text::LimitedRegex::compile(t.answer); !pattern)
      f.refuse("answer", pattern.error().message);
  f.refuse_unknown({"text", "numbers", "maze"}, "is no field of a task");
  if (!problem)
    if (const std::optional<Unsolvable> u = unsolvable(t)) f.refuse(u->field, u->why);
  TRY(problem.done());
  return t;
}

/// The text of a message: its content, or the parts of it that are text.
std::string text_of(const nlohmann::json& message) {
  const auto content = message.find("content");
  if (content == message.end()) return "";
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  if (content->is_array())
    for (const nlohmann::json& part : *content)
      if (part.is_object() && part.contains("text") && part["text"].is_string())
        text += part["text"].get<std::string>() + "\n";
  return text;
}

/// What a user says last.
std::string last_words(const std::string& messages) {
  std::string words;
  for (const nlohmann::json& message : nlohmann::json::parse(messages))
    if (message.is_object() && message.value("role", nlohmann::json()) == "user")
      words = text_of(message);
  return words;
}

}  // namespace

Result<std::vector<Task>> read_tasks(const std::string& path) {
  TRY_ASSIGN(const std::string text, data::read_text(path, {}, kFileBytesMax));
  return parse_tasks(text, path);
}

Result<std::vector<Task>> parse_tasks(std::string_view text, const std::string& path) {
  std::vector<Task> tasks;
  std::string_view rest = text;
  for (size_t number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}:{}", path, number);
    const auto as_written = parse_ordered_json(line, where);
    if (!as_written) return fail(Code::kInvalidInput, "{}", as_written.error().message);
    if (!as_written->is_object()) return fail(Code::kInvalidInput, "{}: not a JSON object", where);
    TRY_ASSIGN(const nlohmann::json object, parse_json(line, where));  // valid, as was just seen
    TRY_ASSIGN(Task task, read_task(object, *as_written, where));
    tasks.push_back(std::move(task));
  }
  if (tasks.empty()) return fail(Code::kInvalidInput, "{}: has no tasks", path);
  return tasks;
}

namespace {

/// A sum of two numbers with the smaller one first, in which it is asked; anything else as it is.
std::string with_terms_in_order(std::string question) {
  constexpr std::string_view kBefore = "What is ", kPlus = " + ", kBehind = "?";
  if (!question.starts_with(kBefore) || !question.ends_with(kBehind)) return question;
  const std::string_view sum = std::string_view(question).substr(
      kBefore.size(), question.size() - kBefore.size() - kBehind.size());
  const size_t plus = sum.find(kPlus);
  if (plus == std::string_view::npos) return question;
  const std::string_view a = sum.substr(0, plus), b = sum.substr(plus + kPlus.size());
  const auto is_number = [](std::string_view n) {
    return !n.empty() && n.find_first_not_of("0123456789") == std::string_view::npos;
  };
  const bool in_order = std::pair(a.size(), a) <= std::pair(b.size(), b);
  if (!is_number(a) || !is_number(b) || in_order) return question;
  return fmt::format("{}{}{}{}{}", kBefore, b, kPlus, a, kBehind);
}

}  // namespace

std::string question_of(const Task& task) {
  std::istringstream lines(task.messages.empty() ? task.prompt : last_words(task.messages));
  std::string question, line, word;
  for (bool ended = true; std::getline(lines, line);) {
    std::istringstream words(line);
    bool blank = true;
    while (words >> word) {
      if (std::exchange(ended, false)) question.clear();
      question += (question.empty() ? "" : " ") + word;
      blank = false;
    }
    ended = blank;
  }
  return with_terms_in_order(std::move(question));
}

std::vector<std::string> doubts_of(std::span<const Task> tasks,
                                   const std::string& path,
                                   std::span<const Task> held_out,
                                   const std::string& held_out_path) {
  struct Alike {
    int64_t count = 0;
    size_t first = 0, other = 0;  // places in their files
    void found(size_t at, size_t before) {
      if (count++ > 0) return;
      first = at + 1;
      other = before + 1;
    }
  };
  using Asked = std::pair<std::string, std::string>;  // and its answer
  std::map<Asked, size_t> learnt;
  std::vector<std::string> doubts;
  const auto look = [&](std::span<const Task> of, const std::string& in, bool held) {
    std::map<Asked, size_t> seen;
    Alike twice, known;
    for (size_t t = 0; t < of.size(); ++t) {
      const Asked asked{question_of(of[t]), of[t].answer};
      const auto [it, is_new] = seen.try_emplace(asked, t);
      if (!is_new) twice.found(t, it->second);
      if (const auto other = learnt.find(asked); other != learnt.end())
        known.found(t, other->second);
    }
    if (!held) learnt = std::move(seen);
    if (twice.count > 0)
      doubts.push_back(
          fmt::format("{}: {} of {} tasks ask what another one before them asks, the first is task "
                      "{}, after task {}",
                      in,
                      twice.count,
                      of.size(),
                      twice.first,
                      twice.other));
    if (known.count > 0)
      doubts.push_back(
          fmt::format("{}: {} of {} tasks held out ask what is learnt from, the first is task {}, "
                      "as task {} of {}; how well they "
                      "are solved may say nothing of others",
                      in,
                      known.count,
                      of.size(),
                      known.first,
                      known.other,
                      path));
  };
  look(tasks, path, false);
  look(held_out, held_out_path, true);
  return doubts;
}

std::string to_json_line(const Task& t, bool with_text) {
  nlohmann::ordered_json j;
  if (!t.kind.empty()) j["kind"] = t.kind;
  j["difficulty"] = t.difficulty;
  if (t.messages.empty())
    j["prompt"] = t.prompt;
  else
    j["messages"] = parse_ordered_json(t.messages, "the task").value();
  if (t.check == Check::kSchema)
    j["schema"] = parse_ordered_json(t.answer, "the task").value();
  else
    j["answer"] = t.answer;
  if (t.check != Check::kExact) j["check"] = name_of(t.check);
  if (t.tolerance > 0) j["tolerance"] = t.tolerance;
  if (!t.numbers.empty()) j["numbers"] = t.numbers;
  if (!t.maze.empty()) j["maze"] = t.maze;
  if (!t.solution.empty()) j["solution"] = t.solution;
  if (with_text) j["text"] = t.prompt + t.solution;
  return json_text(j);
}

}  // namespace ferry::rl
