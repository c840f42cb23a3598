// Tasks: what a model is asked, and how an answer is told to be right. A set of them is a file of
// JSON lines.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ferry::rl {

class SchemaCheck;

/// How an answer is compared with what the task says.
enum class Check {
  kExact,      // the same text; white space between words does not count
  kNumber,     // a number within `tolerance` of it
  kRegex,      // matched by it, whole
  kCountdown,  // an expression that uses each of `numbers` once and has this value
  kMaze,       // moves (U, D, L, R) that lead from S to E through `maze`
  kSchema,     // a JSON document that satisfies it
  kProgram,    // what a command of the user's says (rl/program_judge.h)
};

struct Task {
  std::string kind;        // results are told by it
  int64_t difficulty = 0;  // and by this
  std::string prompt;      // text; or
  /// A conversation, as JSON with the fields in the file's order: then the model's chat template is applied.
  std::string messages;
  std::string answer;  // of kSchema the schema, a text in JSON
  Check check = Check::kExact;
  double tolerance = 0;
  std::vector<int64_t> numbers;
  std::vector<std::string> maze;  // rows of '#', '.', 'S' and 'E'
  std::string solution = {};  // an answer with its thoughts, of those that are made; may be empty
  /// Of kSchema, where it was read from a file: `answer`, compiled.
  std::shared_ptr<const SchemaCheck> schema = {};
};

/// The lines of a file: "prompt" or "messages", "answer", and optionally "kind", "difficulty",
/// "check" ("exact", "number", "regex", "countdown", "maze", "schema", "program"), "tolerance", "numbers", "maze",
/// "schema" (in place of "answer"), "solution", and "text", which is for training and not read.
/// Errors: kInvalidInput with the line: JSON, fields, patterns, mazes, schemas, tasks that are unsolvable(); kNotFound.
Result<std::vector<Task>> read_tasks(const std::string& path);
/// The same of a file's text.
Result<std::vector<Task>> parse_tasks(std::string_view text, const std::string& path);

/// What is asked, by which tasks are told apart: the last paragraph of the prompt, or of what a user says last, with
/// one blank between words. Instructions stand before it, or in other messages, and change no task: nor does its
/// answer, which follows from the question. "What is 3 + 2?" asks what "What is 2 + 3?" does, and is told as that.
std::string question_of(const Task& task);

/// What may be wrong with tasks of a run, to be told: some ask what earlier ones of the same file ask (by question_of
/// and answer), or some that are held out ask what is learnt from.
std::vector<std::string> doubts_of(std::span<const Task> tasks,
                                   const std::string& path,
                                   std::span<const Task> held_out,
                                   const std::string& held_out_path);

/// One line, without the newline. `with_text`: with "text", the prompt and its solution.
std::string to_json_line(const Task& task, bool with_text);

}  // namespace ferry::rl
