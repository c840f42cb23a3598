// Makes tasks whose answers can be checked: sums, countdown, sorting, mazes.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "rl/tasks.h"

namespace ferry::rl {

/// "sum", "countdown", "sort", "maze".
std::vector<std::string> task_kinds();

constexpr int64_t kDifficultyMax = 20;

/// Tasks first, first + 1, ... of the kind: each a function of (kind, seed, difficulty, its number), so that
/// sets of one seed that do not overlap in numbers are drawn apart (two tasks may still be equal).
///
///     sum        two numbers of up to `difficulty` digits
///     sort       difficulty + 1 numbers below 10 (below 100 from difficulty 10 on)
///     countdown  difficulty + 1 numbers, and what some expression makes of them
///     maze       2 difficulty + 3 squares wide and high, with one way
///
/// Check: a kind of task_kinds(), difficulty 1 to kDifficultyMax.
std::vector<Task> make_tasks(
    const std::string& kind, uint64_t seed, int64_t difficulty, int64_t first, int64_t count);

}  // namespace ferry::rl
