// Tasks that nobody could solve are told from those that somebody may.
#include "rl/solvable.h"

#include <gtest/gtest.h>

namespace ferry::rl {
namespace {

Task countdown(std::string answer, std::vector<int64_t> numbers) {
  Task t;
  t.check = Check::kCountdown;
  t.answer = std::move(answer);
  t.numbers = std::move(numbers);
  return t;
}

TEST(Solvable, Countdown) {
  EXPECT_FALSE(unsolvable(countdown("24", {1, 3, 4, 6})));  // 6 / (1 - 3 / 4): by a fraction
  EXPECT_FALSE(unsolvable(countdown("24", {3, 3, 8, 8})));  // 8 / (3 - 8 / 3)
  EXPECT_FALSE(unsolvable(countdown("-2", {3, 5})));
  EXPECT_FALSE(unsolvable(countdown("7.0", {7})));
  EXPECT_TRUE(unsolvable(countdown("24", {1, 1, 1, 1})));
  EXPECT_TRUE(unsolvable(countdown("7", {8})));
  EXPECT_TRUE(unsolvable(countdown("7", {})));
  EXPECT_TRUE(unsolvable(countdown("7.5", {15, 2})));
  EXPECT_TRUE(unsolvable(countdown("many", {1, 2})));
  // 2^53 + 1 is not 2^53.
  EXPECT_TRUE(unsolvable(countdown("9007199254740993", {9007199254740992})));
  // Of many numbers it is believed, but for a solution that is wrong.
  Task many = countdown("1000000", {1, 1, 1, 1, 1, 1});
  EXPECT_FALSE(unsolvable(many));
  many.solution = "<think>\n</think>\n1 + 1 + 1 + 1 + 1 + 1";
  ASSERT_TRUE(unsolvable(many));
  EXPECT_STREQ(unsolvable(many)->field, "solution");
}

TEST(Solvable, Mazes) {
  Task t;
  t.check = Check::kMaze;
  t.maze = {"#####", "#S..#", "###.#", "#..E#", "#####"};
  EXPECT_FALSE(unsolvable(t));
  t.maze[2] = "#####";
  EXPECT_TRUE(unsolvable(t));
  t.maze = {"SE"};
  EXPECT_FALSE(unsolvable(t));
  t.maze = {"S#E"};
  EXPECT_TRUE(unsolvable(t));
}

TEST(Solvable, AnswersThatCouldNotBeGiven) {
  Task t;
  for (const char* none : {"", "  \n", "\\boxed{7}", "<think>7", "<think>7</think>8"}) {
    t.answer = none;
    EXPECT_TRUE(unsolvable(t)) << none;
  }
  t.answer = "the \\boxed";
  EXPECT_FALSE(unsolvable(t));
  t.check = Check::kNumber;
  t.answer = "12 apples";
  EXPECT_TRUE(unsolvable(t));
  t.answer = "12";
  EXPECT_FALSE(unsolvable(t));
  t.solution = "is 6 + 6</think>12";
  EXPECT_FALSE(unsolvable(t));
  t.solution = "is 6 + 6</think>13";
  EXPECT_TRUE(unsolvable(t));
  t.check = Check::kProgram;
  EXPECT_FALSE(unsolvable(t));
}

}  // namespace
}  // namespace ferry::rl
