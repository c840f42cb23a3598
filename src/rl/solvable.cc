#include "rl/solvable.h"

#include "rl/decimal.h"
#include "rl/expression.h"
#include "rl/rewards.h"

namespace ferry::rl {
namespace {

constexpr size_t kSearchedMax =
    4;  // numbers of a countdown: 3,888 ways; one number more, 60 times as many

/// Whether the parts can be combined to the target, each used once.
bool reaches(const std::vector<Fraction>& parts, int64_t target) {
  if (parts.size() == 1) return parts[0].denominator == 1 && parts[0].numerator == target;
  for (size_t i = 0; i < parts.size(); ++i)
    for (size_t j = 0; j < parts.size(); ++j) {
      if (i == j) continue;
      std::vector<Fraction> left;
      for (size_t k = 0; k < parts.size(); ++k)
        if (k != i && k != j) left.push_back(parts[k]);
      left.emplace_back();
      // What does not depend on the order is tried in one of them.
      for (const auto combine : {difference_of, quotient_of, sum_of, product_of}) {
        if (i > j && (combine == sum_of || combine == product_of)) continue;
        const std::optional<Fraction> value = combine(parts[i], parts[j]);
        if (!value) continue;
        left.back() = *value;
        if (reaches(left, target)) return true;
      }
    }
  return false;
}

std::optional<Unsolvable> countdown(const Task& task) {
  const std::optional<Decimal> target = decimal_of(task.answer);
  if (!target || !target->whole()) return Unsolvable{"answer", "must be a whole number of 64 bits"};
  if (task.numbers.empty()) return Unsolvable{"numbers", "must not be empty"};
  if (task.numbers.size() > kSearchedMax || !task.solution.empty()) return std::nullopt;
  std::vector<Fraction> parts;
  for (const int64_t n : task.numbers) parts.push_back({n, 1});
  if (reaches(parts, *target->whole())) return std::nullopt;
  return Unsolvable{"answer", "is the value of no expression that uses each of the numbers once"};
}

std::optional<Unsolvable> maze(const Task& task) {
  std::vector<std::string> rows = task.maze;  // '#' where the walk has been, too
  struct Square {
    size_t row, column;
  };
  std::vector<Square> open;
  for (size_t r = 0; r < rows.size(); ++r)
    for (size_t c = 0; c < rows[r].size(); ++c)
      if (rows[r][c] == 'S') open.push_back({r, c});
  while (!open.empty()) {
    const auto [row, column] = open.back();
    open.pop_back();
    char& here = rows[row][column];
    if (here == 'E') return std::nullopt;
    if (here == '#') continue;
    here = '#';
    if (row > 0) open.push_back({row - 1, column});
    if (row + 1 < rows.size()) open.push_back({row + 1, column});
    if (column > 0) open.push_back({row, column - 1});
    if (column + 1 < rows[row].size()) open.push_back({row, column + 1});
  }
  return Unsolvable{"maze", "has no way from S to E"};
}

/// Of a task that is solved by writing down what it says: whether that would be taken for it.
std::optional<Unsolvable> own_answer(const Task& task) {
  if (is_right(task, take_apart(task.answer, false).answer)) return std::nullopt;
  if (task.check == Check::kNumber) return Unsolvable{"answer", "must be a number"};
  return Unsolvable{
      "answer",
      "could not be given: white space, a <think> and the braces of a \\boxed{} are no part of "
      "what is compared"};
}

}  // namespace

std::optional<Unsolvable> unsolvable(const Task& task) {
  std::optional<Unsolvable> found;
  switch (task.check) {
    case Check::kExact:
    case Check::kNumber: found = own_answer(task); break;
    case Check::kCountdown: found = countdown(task); break;
    case Check::kMaze: found = maze(task); break;
    case Check::kRegex:
      if (task.answer.empty()) found = Unsolvable{"answer", "must not be empty"};
      break;
    case Check::kSchema: break;  // that some document satisfies it, its reader knows
    case Check::kProgram: return std::nullopt;
  }
  if (found) found->why += ": no answer could be right";
  if (found || task.solution.empty()) return found;
  // The prompt may have opened the thought that the solution goes on with.
  for (const bool thinking : {false, true})
    if (is_right(task, take_apart(task.solution, thinking).answer)) return std::nullopt;
  return Unsolvable{"solution",
                    "is not right by the task's own check, by which what cannot be told within its "
                    "limits is wrong"};
}

}  // namespace ferry::rl
