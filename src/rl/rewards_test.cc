// What is right, and what is not although it looks so.
#include "rl/rewards.h"

#include <gtest/gtest.h>

#include <ctime>

namespace ferry::rl {
namespace {

Task with(Check check, std::string answer) {
  Task t;
  t.answer = std::move(answer);
  t.check = check;
  return t;
}

TEST(Rewards, AnswersAreTakenApart) {
  const AnswerParts plain = take_apart("  42\n", false);
  EXPECT_EQ(plain.answer, "42");
  EXPECT_FALSE(plain.has_thought || plain.well_formed);
  const AnswerParts thought = take_apart("\n<think>\n1 + 1\n</think>\n2", false);
  EXPECT_EQ(thought.thought, "1 + 1");
  EXPECT_EQ(thought.answer, "2");
  EXPECT_TRUE(thought.well_formed);
  const AnswerParts opened = take_apart("1 + 1</think>2", true);
  EXPECT_EQ(opened.answer, "2");
  EXPECT_TRUE(opened.well_formed);
  EXPECT_EQ(take_apart("so \\boxed{\\frac{1}{2}} or \\boxed{ 7 }.", false).answer, "7");
  EXPECT_EQ(take_apart("\\boxed{1", false).answer, "\\boxed{1");
  for (const char* bad : {"<think>2",
                          "<think>a</think>",
                          "<think>a</think>b</think>c",
                          "<think><think>a</think>b",
                          "<think>a</think>\\boxed{ }",
                          "<think> \n</think>b",
                          "x<think>a</think>b"})
    EXPECT_FALSE(take_apart(bad, false).well_formed) << bad;
  EXPECT_EQ(take_apart("<think>2", false).answer, "");  // an answer within a thought is none
  EXPECT_EQ(take_apart("\\boxed{}", false).answer, "");
}

TEST(Rewards, OfBoxesTheLastThatClosesCounts) {
  const std::pair<const char*, const char*> cases[] = {
      {"\\boxed{1} \\boxed{2", "1"},
      {"\\boxed{1 \\boxed{2} 3}", "2"},
      {"} \\boxed{1} }", "1"},
      {"\\boxed{1} {\\boxed{2}", "2"},
      {"\\boxed{1} {2}", "1"},
      {"boxed{1}", "boxed{1}"},
  };
  for (const auto& [text, inside] : cases)
    EXPECT_EQ(take_apart(text, false).answer, inside) << text;
}

// A model that has lost its way repeats itself. Where each box is held against all that follows, this takes sixteen
// times as long for four times as many.
TEST(Rewards, AnAnswerThatOnlyOpensBoxesIsSoonTakenApart) {
  const auto processor_s = [](int count) {
    std::string boxes;
    for (int i = 0; i < count; ++i) boxes += "\\boxed{";
    const std::clock_t began = std::clock();
    EXPECT_EQ(take_apart(boxes, false).answer, boxes);
    EXPECT_EQ(take_apart(boxes + "7}", false).answer, "7");
    return static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
  };
  EXPECT_LT(processor_s(40'000), 9 * processor_s(10'000) + 0.1);
}

TEST(Rewards, ThoughtsThatAPromptOpenedAreKnownByTheirEnds) {
  const auto think = [](std::vector<std::string_view> texts, std::vector<bool> ended) {
    return seem_to_think(texts, ended);
  };
  EXPECT_TRUE(think({"1 + 1</think>2", "1 + 1 is"}, {true, false}));
  EXPECT_FALSE(think({"2", "3", "an end is written </think>"}, {true, true, true}));
  EXPECT_FALSE(think({"<think>1 + 1</think>2", "<think>1"}, {true, false}));
  EXPECT_FALSE(think({"2", "3"}, {false, false}));
  EXPECT_FALSE(think({}, {}));
}

TEST(Rewards, ExactAndNumber) {
  EXPECT_TRUE(is_right(with(Check::kExact, "1 2 3"), " 1  2\n3 "));
  EXPECT_FALSE(is_right(with(Check::kExact, "1 2 3"), "1 23"));
  const Task n = with(Check::kNumber, "1234.5");
  EXPECT_TRUE(is_right(n, "1,234.50"));
  EXPECT_TRUE(is_right(n, "+1234.5"));
  for (const char* bad : {"", "nan", "inf", "1234.5 or 7", "1234.6", "0x4d2"})
    EXPECT_FALSE(is_right(n, bad)) << bad;
  Task near = n;
  near.tolerance = 0.1;
  EXPECT_TRUE(is_right(near, "1234.6"));
  EXPECT_EQ(vote_of(n, "1,234.50"), vote_of(n, "1234.5"));
  // Digits count, beyond those of a double.
  const Task large = with(Check::kNumber, "9007199254740993");
  EXPECT_TRUE(is_right(large, "9,007,199,254,740,993.0"));
  EXPECT_FALSE(is_right(large, "9007199254740992"));
  EXPECT_NE(vote_of(large, "9007199254740993"), vote_of(large, "9007199254740992"));
  EXPECT_FALSE(is_right(with(Check::kNumber, "15"), "1,5"));  // no comma between thousands
}

TEST(Rewards, RegexThatWouldNotEndIsWrong) {
  EXPECT_TRUE(is_right(with(Check::kRegex, "(?i)yes[.!]?"), "Yes!"));
  EXPECT_FALSE(is_right(with(Check::kRegex, "(a+)+[bc]"), std::string(40, 'a') + "d"));
}

TEST(Rewards, Countdown) {
  Task t = with(Check::kCountdown, "28");
  t.numbers = {3, 7, 7};
  EXPECT_TRUE(is_right(t, "7 * (7 - 3)"));
  EXPECT_TRUE(is_right(t, "7*(7-3) = 28"));
  for (const char* bad : {"28",
                          "7 * 4",
                          "7 * (7 - 3) + 3 - 3",
                          "7 * (7 - 3",
                          "7 (7 - 3)",
                          "7 * -3 + 7 * 7",
                          "28 = 7 * (7 - 3)",
                          "7 * (7 - 3) / 0"})
    EXPECT_FALSE(is_right(t, bad)) << bad;
  t = with(Check::kCountdown, "9007199254740993");
  t.numbers = {9007199254740992};
  EXPECT_FALSE(is_right(t, "9007199254740992"));  // nor is it as a double
}

TEST(Rewards, Maze) {
  Task t = with(Check::kMaze, "RRDD");
  t.maze = {"#####", "#S..#", "###.#", "#..E#", "#####"};
  EXPECT_TRUE(is_right(t, "RRDD"));
  EXPECT_TRUE(is_right(t, "R R D D"));
  for (const char* bad : {"DDRR", "RR", "RRDDR", "rrdd", "UUUUUUUU", "RRDD!"})
    EXPECT_FALSE(is_right(t, bad)) << bad;
}

TEST(Rewards, ScriptsAreTold) {
  const auto latin = ScriptShare::of("Latin"), han = ScriptShare::of("Han");
  ASSERT_TRUE(latin && han);
  EXPECT_EQ((*latin)("3 + 4 = 7"), 1);
  EXPECT_EQ((*latin)("ab \xe4\xbd\xa0\xe5\xa5\xbd"), 0.5);
  EXPECT_EQ((*han)("ab \xe4\xbd\xa0\xe5\xa5\xbd"), 0.5);
  EXPECT_EQ((*latin)("7"), 1);
  for (const char* nothing : {"", " \n"}) EXPECT_EQ((*latin)(nothing), 0);
  for (const char* bad : {"", "Klingon", "L}a{"}) EXPECT_FALSE(ScriptShare::of(bad)) << bad;
}

}  // namespace
}  // namespace ferry::rl
