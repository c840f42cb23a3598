#include "rl/task_makers.h"

#include <algorithm>
#include <array>
#include <deque>

#include "base/check.h"
#include "base/random.h"

namespace ferry::rl {
namespace {

/// Numbers of one task, one after the other.
class Draw {
 public:
  Draw(const std::string& kind, uint64_t seed, int64_t difficulty, int64_t number)
      : random_(seed ^ name_hash(kind.data(), kind.size()),
                RandomPurpose::kTask,
                static_cast<uint64_t>(number) * (kDifficultyMax + 1) +
                    static_cast<uint64_t>(difficulty)) {}
  int64_t below(int64_t n) {
    return static_cast<int64_t>(random_.below(next_++, static_cast<uint64_t>(n)));
  }

 private:
  Random random_;
  uint64_t next_ = 0;
};

std::string joined(const std::vector<int64_t>& numbers, const char* between) {
  std::string text;
  for (const int64_t n : numbers) text += (text.empty() ? "" : between) + std::to_string(n);
  return text;
}

std::string thought(const std::string& text, const std::string& answer) {
  return "<think>\n" + text + "\n</think>\n" + answer;
}

/// Column by column from the right, as it is done on paper.
Task sum(Draw& draw, int64_t digits) {
  int64_t limit = 1;
  for (int64_t d = 0; d < std::min<int64_t>(digits, 17); ++d) limit *= 10;
  const int64_t a = draw.below(limit), b = draw.below(limit);
  Task t;
  t.prompt = fmt::format("What is {} + {}?\n", a, b);
  t.answer = std::to_string(a + b);
  t.check = Check::kNumber;
  std::string steps;
  int64_t x = a, y = b, carry = 0;
  do {
    const int64_t column = x % 10 + y % 10 + carry;
    steps += fmt::format("{}{} + {}{} = {}",
                         steps.empty() ? "" : "\n",
                         x % 10,
                         y % 10,
                         carry > 0 ? " + 1" : "",
                         column);
    carry = column / 10;
    x /= 10;
    y /= 10;
  } while (x > 0 || y > 0);
  t.solution = thought(steps, t.answer);
  return t;
}

/// The smallest of those that are left, again and again.
Task sort(Draw& draw, int64_t difficulty) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i <= difficulty; ++i)
    numbers.push_back(draw.below(difficulty < 10 ? 10 : 100));
  Task t;
  t.prompt = fmt::format("Sort {}.\n", joined(numbers, " "));
  std::vector<int64_t> left = numbers, sorted;
  std::string steps;
  while (!left.empty()) {
    const auto least = std::min_element(left.begin(), left.end());
    sorted.push_back(*least);
    left.erase(least);
    if (!left.empty())
      steps +=
          fmt::format("{}{}, left {}", steps.empty() ? "" : "\n", sorted.back(), joined(left, " "));
  }
  t.answer = joined(sorted, " ");
  t.solution = thought(steps, t.answer);
  return t;
}

/// Combines numbers at random until one is left: so there is a way, and its steps are the thought.
Task countdown(Draw& draw, int64_t difficulty) {
  struct Part {
    int64_t value;
    std::string text;
    bool atom;
  };
  Task t;
  std::vector<Part> parts;
  for (int64_t i = 0; i <= difficulty; ++i) {
    t.numbers.push_back(1 + draw.below(20));
    parts.push_back({t.numbers.back(), std::to_string(t.numbers.back()), true});
  }
  const auto bracketed = [](const Part& p) { return p.atom ? p.text : "(" + p.text + ")"; };
  std::string steps;
  while (parts.size() > 1) {
    const auto take = [&] {
      const auto at = parts.begin() + draw.below(std::ssize(parts));
      Part part = *at;
      parts.erase(at);
      return part;
    };
    Part a = take(), b = take();
    if (a.value < b.value) std::swap(a, b);
    std::string op = "+";
    int64_t value = a.value + b.value;
    switch (draw.below(4)) {
      case 1:
        op = "-";
        value = a.value - b.value;
        break;
      case 2:
        if (a.value * b.value > 1000) break;
        op = "*";
        value = a.value * b.value;
        break;
      case 3:
        if (b.value == 0 || a.value % b.value != 0) break;
        op = "/";
        value = a.value / b.value;
        break;
      default: break;
    }
    steps += fmt::format("{}{} {} {} = {}", steps.empty() ? "" : "\n", a.value, op, b.value, value);
    parts.push_back({value, fmt::format("{} {} {}", bracketed(a), op, bracketed(b)), false});
  }
  t.answer = std::to_string(parts.front().value);
  t.prompt = fmt::format("Make {} from {}.\n", t.answer, joined(t.numbers, " "));
  t.check = Check::kCountdown;
  t.solution = thought(steps, parts.front().text);
  return t;
}

struct Square {
  int64_t row, column;
};
constexpr std::pair<char, Square> kMoves[] = {
    {'U', {-1, 0}}, {'D', {1, 0}}, {'L', {0, -1}}, {'R', {0, 1}}};

/// A tree of passages, dug by a random walk that turns back where it is stuck: from S to E there is
/// one way.
Task maze(Draw& draw, int64_t difficulty) {
  const int64_t size = 2 * difficulty + 3;
  std::vector<std::string> rows(static_cast<size_t>(size),
                                std::string(static_cast<size_t>(size), '#'));
  const auto at = [&](Square s) -> char& {
    return rows[static_cast<size_t>(s.row)][static_cast<size_t>(s.column)];
  };
  std::vector<Square> walk = {{1, 1}};
  std::string moves, way;  // of the walk; to the end
  const Square end{size - 2, size - 2};
  at(walk.back()) = '.';
  while (!walk.empty()) {
    const Square here = walk.back();
    if (here.row == end.row && here.column == end.column) way = moves;
    std::vector<std::pair<char, Square>> open;
    for (const auto& [name, m] : kMoves) {
      const Square next{here.row + 2 * m.row, here.column + 2 * m.column};
      if (next.row > 0 && next.row < size && next.column > 0 && next.column < size &&
          at(next) == '#')
        open.emplace_back(name, m);
    }
    if (open.empty()) {
      walk.pop_back();
      moves.resize(moves.size() - std::min<size_t>(2, moves.size()));
      continue;
    }
    const auto [name, m] = open[static_cast<size_t>(draw.below(std::ssize(open)))];
    at({here.row + m.row, here.column + m.column}) = '.';
    walk.push_back({here.row + 2 * m.row, here.column + 2 * m.column});
    at(walk.back()) = '.';
    moves.append(2, name);
  }
  at({1, 1}) = 'S';
  at(end) = 'E';
  Task t;
  t.maze = rows;
  t.answer = way;
  t.check = Check::kMaze;
  t.prompt = "Find the way from S to E.\n";
  for (const std::string& row : rows) t.prompt += row + "\n";
  t.solution = t.answer;
  return t;
}

using Maker = Task (*)(Draw&, int64_t);
constexpr std::pair<const char*, Maker> kMakers[] = {
    {"sum", sum}, {"countdown", countdown}, {"sort", sort}, {"maze", maze}};

}  // namespace

std::vector<std::string> task_kinds() {
  std::vector<std::string> names;
  for (const auto& [name, maker] : kMakers) names.emplace_back(name);
  return names;
}

std::vector<Task> make_tasks(
    const std::string& kind, uint64_t seed, int64_t difficulty, int64_t first, int64_t count) {
  const auto* const found = std::find_if(
      std::begin(kMakers), std::end(kMakers), [&](const auto& m) { return kind == m.first; });
  check(found != std::end(kMakers), "tasks: no kind {}", kind);
  check(difficulty >= 1 && difficulty <= kDifficultyMax, "tasks: difficulty {}", difficulty);
  std::vector<Task> tasks;
  for (int64_t i = first; i < first + count; ++i) {
    Draw draw(kind, seed, difficulty, i);
    Task task = found->second(draw, difficulty);
    task.kind = kind;
    task.difficulty = difficulty;
    tasks.push_back(std::move(task));
  }
  return tasks;
}

}  // namespace ferry::rl
