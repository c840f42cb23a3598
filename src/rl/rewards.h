// What an answer is worth: rules that no answer can talk to. Each is a function of the task and of the
// answer's text.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rl/program_judge.h"
#include "rl/tasks.h"
#include "text/limited_regex.h"

namespace ferry::rl {

/// An answer's text, taken apart. Where a thought is opened (by the prompt, or by <think> where nothing
/// stands before it) and never closed, there is no answer.
struct AnswerParts {
  std::string thought;
  std::string answer;  // what stands behind the thought, without white space at its ends; of
                       // \boxed{...} in it, the last one's inside
  bool has_thought = false;
  /// Exactly one thought, first and closed and not empty, and an answer behind it.
  bool well_formed = false;
};

/// `thinking`: the prompt has opened the thought.
AnswerParts take_apart(std::string_view text, bool thinking);

/// Whether the prompts of these answers, which nobody has seen, seem to have opened a thought: more of the
/// answers close one that they did not open than name none although they came to their end. `ended`: for
/// each answer, whether it did.
bool seem_to_think(std::span<const std::string_view> texts, const std::vector<bool>& ended);

/// Whether the answer is right, by the task's rule. What cannot be told within limits is wrong, and so is
/// every answer that a program is to judge: Judge asks it.
bool is_right(const Task& task, std::string_view answer);

/// What answers that mean the same have in common, for counting votes: of a number its value, of other
/// text its words.
std::string vote_of(const Task& task, std::string_view answer);

/// Judges answers, by rules or, where tasks ask for it, by the user's program.
class Judge {
 public:
  /// `program`: nothing where there is none. Errors: kInvalidInput, naming `path`: a task asks for one.
  static Result<Judge> create(std::optional<ProgramJudge> program,
                              std::span<const Task> tasks,
                              const std::string& path);

  struct Asked {
    const Task* task;
    const AnswerParts* parts;
    const std::string* text;  // all of the answer
  };
  struct Judged {
    std::vector<double> worth;  // of each answer, 0 to 1; by a rule 0 or 1
    ProgramTally programs;
  };
  /// Errors: of ProgramJudge::verdicts.
  Result<Judged> judge(std::span<const Asked> answers, const std::function<bool()>& go_on) const;

 private:
  explicit Judge(std::optional<ProgramJudge> program) : program_(std::move(program)) {}
  std::optional<ProgramJudge> program_;
};

/// The share of a text's letters that are of one script: what a text's language can be told by without
/// a dictionary. A text without letters is of every script, one of nothing but white space of none.
class ScriptShare {
 public:
  /// A script by its Unicode name: "Latin", "Han", "Cyrillic". Errors: kInvalidInput.
  static Result<ScriptShare> of(const std::string& script);
  double operator()(std::string_view text) const;

 private:
  ScriptShare(text::LimitedRegex letters, text::LimitedRegex of_script)
      : letters_(std::move(letters)), of_script_(std::move(of_script)) {}
  text::LimitedRegex letters_, of_script_;
};

}  // namespace ferry::rl
