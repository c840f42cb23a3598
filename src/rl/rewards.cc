#include "rl/rewards.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/ordered_json.h"
#include "rl/decimal.h"
#include "rl/expression.h"
#include "rl/schema_check.h"

namespace ferry::rl {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>", kBoxed = "\\boxed{";
constexpr std::string_view kSpace = " \t\r\n\f\v";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

/// The inside of the last \boxed{...} whose brackets close; the text itself if there is none.
std::string_view unboxed(std::string_view text) {
  struct Bracket {
    size_t inside;
    bool boxed;
  };
  std::vector<Bracket> open;  // each is looked at once: an answer may be nothing but boxes
  std::string_view last = text;
  size_t begin = 0;  // of its box's brackets; 0: there is none yet
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{') open.push_back({i + 1, text.substr(0, i + 1).ends_with(kBoxed)});
    if (text[i] != '}' || open.empty()) continue;
    const auto [inside, boxed] = open.back();
    open.pop_back();
    if (!boxed || inside < begin) continue;
    begin = inside;
    last = trimmed(text.substr(inside, i - inside));
  }
  return last;
}

/// Words with one blank between them.
std::string words(std::string_view text) {
  std::string out;
  for (text = trimmed(text); !text.empty();) {
    const size_t end = std::min(text.find_first_of(kSpace), text.size());
    if (!out.empty()) out += ' ';
    out += text.substr(0, end);
    text = trimmed(text.substr(end));
  }
  return out;
}

bool countdown_right(const Task& task, std::string_view answer) {
  const std::optional<Decimal> target = decimal_of(task.answer);
  // What is written behind "=" is the writer's claim.
  std::optional<Expression> e = evaluate_expression(answer.substr(0, answer.find('=')));
  if (!e || !target || e->value.denominator != 1 || target->whole() != e->value.numerator)
    return false;
  std::vector<int64_t> used = std::move(e->numbers), given = task.numbers;
  std::sort(used.begin(), used.end());
  std::sort(given.begin(), given.end());
  return used == given;
}

bool maze_right(const Task& task, std::string_view answer) {
  const auto& maze = task.maze;
  const int64_t height = std::ssize(maze), width = height > 0 ? std::ssize(maze[0]) : 0;
  const auto at = [&](int64_t r, int64_t c) {
    return maze[static_cast<size_t>(r)][static_cast<size_t>(c)];
  };
  int64_t row = 0, column = 0;
  for (int64_t r = 0; r < height; ++r)
    for (int64_t c = 0; c < width; ++c)
      if (at(r, c) == 'S') {
        row = r;
        column = c;
      }
  for (const char move : answer) {
    if (kSpace.find(move) != std::string_view::npos) continue;
    switch (move) {
      case 'U': --row; break;
      case 'D': ++row; break;
      case 'L': --column; break;
      case 'R': ++column; break;
      default: return false;
    }
    if (row < 0 || row >= height || column < 0 || column >= width || at(row, column) == '#')
      return false;
  }
  return height > 0 && at(row, column) == 'E';
}

}  // namespace

AnswerParts take_apart(std::string_view text, bool thinking) {
  AnswerParts parts;
  std::string_view rest = text;
  if (!thinking && trimmed(text).starts_with(kOpen)) {
    thinking = true;
    rest.remove_prefix(rest.find(kOpen) + kOpen.size());
  }
  if (thinking) {
    parts.has_thought = true;
    const size_t end = rest.find(kClose);
    parts.thought = trimmed(rest.substr(0, end));
    if (end == std::string_view::npos) return parts;
    rest.remove_prefix(end + kClose.size());
  }
  const std::string_view said = trimmed(rest);
  parts.answer = unboxed(said);
  parts.well_formed = thinking && !parts.thought.empty() && !parts.answer.empty() &&
                      said.find(kOpen) == std::string_view::npos &&
                      said.find(kClose) == std::string_view::npos &&
                      parts.thought.find(kOpen) == std::string::npos;
  return parts;
}

bool seem_to_think(std::span<const std::string_view> texts, const std::vector<bool>& ended) {
  int64_t closed = 0, none = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    const size_t open = texts[i].find(kOpen), close = texts[i].find(kClose);
    closed += close < open;
    none += ended[i] && open == close;  // both are nowhere
  }
  return closed > none;
}

bool is_right(const Task& task, std::string_view answer) {
  if (trimmed(answer).empty()) return false;
  switch (task.check) {
    case Check::kExact: return words(answer) == words(task.answer);
    case Check::kNumber: {
      const std::optional<Decimal> got = decimal_of(answer), expected = decimal_of(task.answer);
      return got && expected && within(*got, *expected, task.tolerance);
    }
    case Check::kRegex: {
      const auto pattern = text::LimitedRegex::compile(task.answer);
      if (!pattern) return false;
      const auto matches = pattern->matches_all(trimmed(answer));
      return matches && *matches;
    }
    case Check::kCountdown: return countdown_right(task, answer);
    case Check::kMaze: return maze_right(task, answer);
    case Check::kSchema: {
      if (task.schema) return task.schema->satisfied_by(answer);
      const auto schema = SchemaCheck::compile(task.answer);
      return schema && schema->satisfied_by(answer);
    }
    case Check::kProgram: return false;
  }
  return false;
}

Result<Judge> Judge::create(std::optional<ProgramJudge> program,
                            std::span<const Task> tasks,
                            const std::string& path) {
  const auto asks = [](const Task& t) { return t.check == Check::kProgram; };
  if (!program && std::any_of(tasks.begin(), tasks.end(), asks))
    return fail(Code::kInvalidInput,
                "{}: has tasks that a program is to judge, and none is given; name its command "
                "(rl.program, or --program)",
                path);
  return Judge(std::move(program));
}

Result<Judge::Judged> Judge::judge(std::span<const Asked> answers,
                                   const std::function<bool()>& go_on) const {
  Judged judged{.worth = std::vector<double>(answers.size(), 0), .programs = {}};
  std::vector<size_t> asked;
  std::vector<std::string> inputs;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto& [task, parts, text] = answers[i];
    if (task->check != Check::kProgram) {
      judged.worth[i] = is_right(*task, parts->answer);
      if (go_on) static_cast<void>(go_on());  // rules are soon done, thousands of answers are not
      continue;
    }
    asked.push_back(i);
    nlohmann::ordered_json j;
    if (task->messages.empty())
      j["prompt"] = task->prompt;
    else
      j["messages"] = parse_ordered_json(task->messages, "the task").value();
    j["expected"] = task->answer;
    j["answer"] = parts->answer;
    j["text"] = *text;
    inputs.push_back(json_text(j) + "\n");
  }
  if (inputs.empty()) return judged;
  TRY_ASSIGN(const std::vector<ProgramVerdict> verdicts, program_->verdicts(inputs, go_on));
  for (size_t i = 0; i < asked.size(); ++i) {
    judged.worth[asked[i]] = verdicts[i].worth;
    judged.programs.add(verdicts[i]);
  }
  return judged;
}

std::string vote_of(const Task& task, std::string_view answer) {
  if (task.check == Check::kNumber)
    if (const std::optional<Decimal> value = decimal_of(answer)) return value->text();
  return words(answer);
}

Result<ScriptShare> ScriptShare::of(const std::string& script) {
  TRY_ASSIGN(text::LimitedRegex letters, text::LimitedRegex::compile(R"(\p{L})"));
  const bool name = !script.empty() && std::all_of(script.begin(), script.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  });
  auto of_script = name ? text::LimitedRegex::compile(fmt::format(R"((?=\p{{L}})\p{{{}}})", script))
                        : fail(Code::kInvalidInput, "it is no name");
  if (!of_script)
    return fail(Code::kInvalidInput,
                "script \"{}\": {}; give a script of Unicode, such as Latin or Han",
                script,
                of_script.error().message);
  return ScriptShare(std::move(letters), *std::move(of_script));
}

double ScriptShare::operator()(std::string_view text) const {
  if (trimmed(text).empty()) return 0;
  const auto all = letters_.count(text), of_script = of_script_.count(text);
  if (!all || !of_script) return 0;
  return *all == 0 ? 1 : static_cast<double>(*of_script) / static_cast<double>(*all);
}

}  // namespace ferry::rl
