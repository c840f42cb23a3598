// Tasks that are made, and the file of them.
#include "rl/tasks.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <set>

#include "base/file.h"
#include "rl/rewards.h"
#include "rl/task_makers.h"

namespace ferry::rl {
namespace {

std::string file_with(const std::string& text) {
  const std::string path = join_path(testing::TempDir(), "tasks.jsonl");
  EXPECT_TRUE(write_file_atomic(path, text));
  return path;
}

TEST(Tasks, SolutionsAreRightAndReadBack) {
  for (const std::string& kind : task_kinds())
    for (const int64_t difficulty : {1, 2, 5, 12}) {
      const std::vector<Task> made = make_tasks(kind, 7, difficulty, 0, 50);
      std::string lines;
      for (const Task& t : made) lines += to_json_line(t, true) + "\n";
      const auto read = read_tasks(file_with(lines));
      ASSERT_TRUE(read) << read.error().message;
      ASSERT_EQ(read->size(), made.size());
      std::set<std::string> prompts;
      for (size_t i = 0; i < made.size(); ++i) {
        const Task& t = (*read)[i];
        EXPECT_EQ(to_json_line(t, true), to_json_line(made[i], true));
        EXPECT_TRUE(is_right(t, take_apart(t.solution, false).answer)) << to_json_line(t, true);
        EXPECT_FALSE(is_right(t, "x"));
        prompts.insert(t.prompt);
      }
      EXPECT_GE(prompts.size(),
                kind == "maze" && difficulty < 5 ? 2 * static_cast<size_t>(difficulty) : 25u)
          << kind;
    }
}

TEST(Tasks, AreAFunctionOfTheirNumber) {
  const std::vector<Task> all = make_tasks("sum", 3, 4, 0, 20),
                          part = make_tasks("sum", 3, 4, 15, 5);
  for (size_t i = 0; i < part.size(); ++i) EXPECT_EQ(part[i].prompt, all[15 + i].prompt);
  EXPECT_NE(make_tasks("sum", 4, 4, 0, 1)[0].prompt, all[0].prompt);
}

/// A template sees the fields of a conversation as serve and generate show them to it, and a judge as well.
TEST(Tasks, KeepTheOrderOfTheFile) {
  const std::string messages =
      R"([{"role":"user","content":"Where?"},)"
      R"({"role":"assistant","tool_calls":[{"type":"function","function":)"
      R"({"name":"find","arguments":{"town":"Ulm","by":"ferry","at":{"z":1,"a":2}}}}]}])";
  const std::string schema =
      R"({"type":"object","required":["b","a"],"properties":{"b":true,"a":true}})";
  for (const std::string& line :
       {R"({"difficulty":0,"messages":)" + messages + R"(,"answer":"There"})",
        R"({"difficulty":0,"prompt":"a","schema":)" + schema + R"(,"check":"schema"})"}) {
    const auto read = parse_tasks(line, "tasks");
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(to_json_line(read->front(), false), line);
  }
  EXPECT_EQ(parse_tasks(R"({"answer":"There","messages":)" + messages + "}", "t")->front().messages,
            messages);
}

/// Whatever stands before what is asked, and however it is laid out.
TEST(Tasks, AreToldApartByWhatTheyAsk) {
  const auto asked = [](const std::string& fields) {
    const auto task = parse_tasks("{\"answer\": \"5\", " + fields + "}", "tasks");
    return task ? question_of(task->front()) : task.error().message;
  };
  for (
      const char* same :
      {R"("prompt": "What is 2 + 3?\n")",
       R"("prompt": "What is 3 + 2?")",
       R"("prompt": "Think.\r\n \r\nWhat is\t2 + 3?\n\n")",
       R"("messages": [{"role": "user", "content": "What is 2 + 3?"}])",
       R"("messages": [{"role": "system", "content": "Think."}, )"
       R"({"role": "user", "content": "Think.\n\n\nWhat is 2 + 3?"}])",
       R"("messages": [{"role": "user", "content": "Hi"}, {"role": "assistant"}, )"
       R"({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is 2 + 3?"}]}])",
       R"("messages": [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "It is"}])"})
    EXPECT_EQ(asked(same), "What is 2 + 3?") << same;
  EXPECT_EQ(asked(R"("prompt": "What is 10 + 9?")"), "What is 9 + 10?");
  for (const char* other :
       {"What is 3 + 2 + 1?", "What is b + a?", "What is 3 + ?", "What is 3 - 2?"})
    EXPECT_EQ(asked(fmt::format(R"("prompt": "{}")", other)), other);
  EXPECT_EQ(asked(R"("prompt": "Find it.\n\nThe way:\nS.E\n")"), "The way: S.E");
  for (const char* none : {R"("messages": [])",
                           R"("messages": [3, {"role": 3}])",
                           R"("messages": [{"role": "user", "content": null}])"})
    EXPECT_EQ(asked(none), "") << none;
  for (const std::string& kind : task_kinds())
    for (const Task& t : make_tasks(kind, 7, 5, 0, 20)) {
      EXPECT_FALSE(question_of(t).empty());
      EXPECT_EQ(t.prompt.find("\n\n"), std::string::npos) << "its question would be cut";
    }
}

TEST(Tasks, WhatIsHeldOutAndLearntFromIsDoubted) {
  const auto tasks = [](std::initializer_list<const char*> of) {
    std::vector<Task> all;
    for (const char* asked : of) all.push_back({.prompt = asked, .answer = "5"});
    return all;
  };
  const std::vector<Task> learn = tasks({"Is it 4?", "Is it 5?"});
  EXPECT_EQ(doubts_of(learn, "learn", tasks({"Is it 6?"}), "held"), std::vector<std::string>());
  const auto doubts = doubts_of(tasks({"Is it 4?", "Is it 5?", "Think.\n\nIs it 4?"}),
                                "learn",
                                tasks({"Is it 6?", "Is it  5?"}),
                                "held");
  ASSERT_EQ(doubts.size(), 2u);
  EXPECT_NE(doubts[0].find("learn: 1 of 3 tasks ask what another"), std::string::npos) << doubts[0];
  EXPECT_NE(doubts[0].find("task 3, after task 1"), std::string::npos) << doubts[0];
  EXPECT_NE(doubts[1].find("held: 1 of 2 tasks held out"), std::string::npos) << doubts[1];
  EXPECT_NE(doubts[1].find("task 2, as task 2 of learn"), std::string::npos) << doubts[1];
  // A last paragraph that is a form alone is not what is asked where answers differ.
  std::vector<Task> others = learn;
  for (Task& t : others) t.answer = "7";
  EXPECT_EQ(doubts_of(learn, "learn", others, "held"), std::vector<std::string>());
}

TEST(Tasks, WrongOnesAreRefusedWithTheirLine) {
  for (const char* bad :
       {R"({"prompt": "a"})",
        R"({"answer": "a"})",
        R"({"prompt": "a", "answer": ""})",
        R"({"prompt": "a", "messages": [], "answer": "b"})",
        R"([])",
        R"({"prompt": )",
        R"({"prompt": "a", "answer": "b", "check": "taste"})",
        R"({"prompt": "a", "answer": "(", "check": "regex"})",
        R"({"prompt": "a", "answer": 3, "check": "program"})",
        R"({"prompt": "a", "answer": "R", "check": "maze", "maze": ["S.", "E"]})",
        R"({"prompt": "a", "answer": " "})",
        R"({"prompt": "a", "answer": "b", "check": "number"})",
        R"({"prompt": "a", "answer": "b", "solution": "c"})",
        R"({"prompt": "a", "answer": "7", "check": "countdown"})",
        R"({"prompt": "a", "answer": "7", "check": "countdown", "numbers": [1e300]})",
        R"({"prompt": "a", "answer": "7", "check": "countdown", "numbers": [3.5, 2]})",
        R"({"prompt": "a", "answer": "7", "check": "countdown", "numbers": [-7]})",
        R"({"prompt": "a", "answer": "7", "check": "countdown", "numbers": [2, 2]})",
        R"({"prompt": "a", "answer": "", "check": "maze", "maze": ["S#E"]})",
        R"({"prompt": "a", "check": "schema"})",
        R"({"prompt": "a", "check": "schema", "schema": {"multipleOf": 3}})",
        R"({"prompt": "a", "check": "schema", "schema": {}, "answer": "b"})",
        R"({"prompt": "a", "check": "schema", "schema": {"type": "integer"}, "solution": "x"})",
        R"({"prompt": "a", "answer": "b", "anwser": "c"})"}) {
    const auto read = read_tasks(file_with(R"({"prompt": "a", "answer": "b"})"
                                           "\n" +
                                           std::string(bad) + "\n"));
    ASSERT_FALSE(read) << bad;
    EXPECT_EQ(read.error().code, Code::kInvalidInput);
    EXPECT_NE(read.error().message.find("tasks.jsonl:2"), std::string::npos)
        << read.error().message;
  }
  EXPECT_FALSE(read_tasks(file_with("\n")));
}

/// A solution that is wrong says nothing of other answers, nor does a schema that is too large.
TEST(Tasks, ThatNoAnswerCouldBeRightIsSaidOnlyWhereItIsSo) {
  const auto said = [](const std::string& line) {
    const auto read = parse_tasks(line, "t");
    EXPECT_FALSE(read) << line;
    return read ? "" : read.error().message;
  };
  for (const char* none :
       {R"({"prompt": "a", "answer": " "})",
        R"({"prompt": "a", "answer": "7", "check": "countdown", "numbers": [2, 2]})",
        R"({"prompt": "a", "answer": "", "check": "maze", "maze": ["S#E"]})"})
    EXPECT_NE(said(none).find("no answer could be right"), std::string::npos) << said(none);
  const std::string long_text = std::string(70'000, 'a');
  for (
      const std::string& some :
      {std::string(R"({"prompt": "a", "answer": "b", "solution": "c"})"),
       R"({"prompt": "a", "check": "schema", "schema": {"type": "string"}, "solution": "\")" +
           long_text + "\\\"\"}",
       std::string(
           R"({"prompt": "a", "check": "schema", "schema": {"type": "string", "pattern": "^(?:a{200}){200}$"}})")})
    EXPECT_EQ(said(some).find("no answer could be right"), std::string::npos)
        << said(some).substr(0, 300);
}

}  // namespace
}  // namespace ferry::rl
