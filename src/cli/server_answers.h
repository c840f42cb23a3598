// Answers of an OpenAI-compatible server to tasks: what ferry score --server scores.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rl/score.h"

namespace ferry::cli {

struct ServerQuestions {
  std::string address;  // http://HOST:PORT
  std::string model;    // its name there; empty: the first that the server lists
  std::string key;      // empty: none
  int64_t timeout_ms = 120'000;
  int64_t samples = 1;  // answers to each task
  int64_t at_once = 64;
  int64_t tokens_max = 0;
  double temperature = 1;
  uint64_t seed = 1;
};

/// What a server said.
struct ServerAnswers {
  std::vector<std::optional<rl::Answer>>
      answers;                    // in the order of the tasks; nothing: it did not come
  std::optional<Status> why_not;  // of the first that did not come
};

/// `samples` answers to each task, one after the other, in the order of the tasks. Prompts are continued where the
/// server continues texts, and otherwise asked as a user's message; progress(done) after each round of answers.
/// What is not answered because the server is busy, in trouble or too slow is asked again, less at once and after a
/// while. A thought that the server keeps apart from the text is put before it again; where it keeps none apart, and
/// more answers close a thought that they did not open than have none, an answer without marks is a thought.
/// The first answer that does not come ends it: what came until then is handed over all the same (why_not:
/// kUnavailable, kTimeout, kInvalidInput). Errors: kInvalidInput (address, name, key); kUnavailable, kTimeout: it does
/// not answer, or with something else.
Result<ServerAnswers> ask_server(std::span<const rl::Task> tasks,
                                 const ServerQuestions& questions,
                                 const std::function<void(int64_t)>& progress);

}  // namespace ferry::cli
