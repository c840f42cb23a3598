// When refused updates end a run, and when nothing was learnt may be said of it.
#include "train/refusals.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/patient_output.h"

namespace ferry {
namespace {

/// After so many steps, all refused but the one numbered `made` (0: none): the last step's outcome, and the end's
/// for a run of `steps_of_run`.
struct Outcome {
  Result<void> step, end;
};
Outcome after(int64_t steps, int64_t made, int64_t steps_of_run) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* const out = ::open_memstream(&text, &size);
  Outcome outcome;
  {
    PatientOutput output(out);
    Progress progress({.steps = steps, .every = 10}, output, Terminal(out, false, false), "auto");
    Refusals refusals;
    for (int64_t s = 1; s <= steps; ++s)
      outcome.step = refusals.step(
          s, s == made ? std::nullopt : std::optional<std::string>("nan"), "runs/a", progress);
    outcome.end = refusals.end(steps_of_run);
  }
  std::fclose(out);
  std::free(text);
  return outcome;
}

TEST(Refusals, TwentyInARowEndARun) {
  EXPECT_TRUE(after(19, 0, 19).step);
  const Outcome twenty = after(20, 0, 20);
  ASSERT_FALSE(twenty.step);
  EXPECT_EQ(twenty.step.error().code, Code::kVerdict);
  EXPECT_NE(twenty.step.error().message.find("runs/a"), std::string::npos);
  EXPECT_TRUE(after(30, 15, 30).step);
}

TEST(Refusals, NothingWasLearntOnlyIfEveryStepOfTheRunWasRefused) {
  const Outcome all = after(3, 0, 3);
  ASSERT_FALSE(all.end);
  EXPECT_EQ(all.end.error().code, Code::kVerdict);
  EXPECT_TRUE(after(3, 2, 3).end);
  EXPECT_TRUE(after(1, 0, 1000).end);  // a run that was gone on with: what it did before stands
  EXPECT_TRUE(after(0, 0, 0).end);
}

}  // namespace
}  // namespace ferry
