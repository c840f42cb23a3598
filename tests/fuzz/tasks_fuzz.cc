// Fuzzer of tasks and their judge: the first line is a task, the rest an answer to it. A task is refused with
// words, or survives being written and read again; whatever the answer, it is right or wrong.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "rl/rewards.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry;
  using namespace ferry::rl;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  const Result<std::vector<Task>> tasks = parse_tasks(line, "fuzz.jsonl");
  if (!tasks) {
    check(!tasks.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  const Task& task = tasks->front();
  const std::string written = to_json_line(task, false);
  const Result<std::vector<Task>> again = parse_tasks(written, "written.jsonl");
  check(again.has_value(), "fuzz: refuses its own: {}", again ? "" : again.error().message);
  check(to_json_line(again->front(), false) == written, "fuzz: changed by writing:\n{}", written);
  for (const bool thinking : {false, true}) {
    const AnswerParts parts = take_apart(text, thinking);
    check(!parts.well_formed || (parts.has_thought && !parts.answer.empty()),
          "fuzz: a form without its parts");
    const bool right = is_right(task, parts.answer);
    check(!right || !parts.answer.empty(), "fuzz: nothing is right");
    const bool one =
        task.check == Check::kExact || (task.check == Check::kNumber && task.tolerance == 0);
    check(!right || !one || vote_of(task, parts.answer) == vote_of(task, task.answer),
          "fuzz: equal answers have other votes");
  }
  return 0;
}
