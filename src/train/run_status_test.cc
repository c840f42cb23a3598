#include "train/run_status.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/system.h"

namespace ferry {
namespace {

constexpr int64_t kNow = 1'800'000'000'000;

RunStatus status_of_two() {
  return {.stage = "running",
          .written_unix_ms = kNow - 1000,
          .began_unix_ms = kNow - 3'600'000,
          .pid = ::getpid(),
          .process_began = process_began(::getpid()).value_or(0),
          .process_namespace = process_namespace(),
          .host = host_name(),
          .starts = 2,
          .steps = 400,
          .go_on = "ferry train a.toml --resume",
          .ranks = {{.pid = 11,
                     .step = 40,
                     .doing = "training",
                     .heard_unix_ms = kNow - 65'000,
                     .stopped = true,
                     .in = "matmul (forward, layer 2), after step 40"},
                    {.pid = 12,
                     .step = 40,
                     .doing = "training",
                     .heard_unix_ms = kNow - 2000,
                     .waits_for = 0}},
          .said = {{.unix_ms = kNow - 60'000, .text = "rank 1 was ended by signal 9 (Killed)"}}};
}

std::string all_of(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

class RunStatusFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "run_status";
    ASSERT_TRUE(make_folders(folder_));
  }
  void TearDown() override { ASSERT_TRUE(remove_tree(folder_)); }
  std::string folder_;
};

TEST_F(RunStatusFolder, IsReadAsItWasWritten) {
  RunStatus s = status_of_two();
  s.exit_code = 3;
  s.verdict = {
      .hangs = true, .rank = 0, .peer = 1, .in = "matmul", .seconds = 4, .text = "it hangs"};
  ASSERT_TRUE(write_file_atomic(join_path(folder_, kRunStatusName), to_json(s)));
  const Result<RunStatus> read = read_run_status(folder_);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(to_json(*read), to_json(s));
  EXPECT_EQ(read->ranks[1].waits_for, 0);
  EXPECT_EQ(read->ranks[0].waits_for, std::nullopt);
  EXPECT_EQ(read->exit_code, 3);
  ASSERT_TRUE(read->verdict);
  EXPECT_EQ(read->verdict->peer, 1);
  EXPECT_EQ(read->ranks[0].in, s.ranks[0].in);
}

TEST_F(RunStatusFolder, WhatIsNoneIsRefusedByName) {
  EXPECT_EQ(read_run_status(folder_).error().code, Code::kNotFound);
  const std::string good = to_json(status_of_two());
  for (const auto& [from, to] :
       {std::pair<std::string, std::string>{"\"format\":1", "\"format\":2"},
        {"\"pid\":11", "\"pid\":-1"},
        {"\"starts\":2", "\"starts\":\"2\""},
        {"{\"format\"", "[\"format\""}}) {
    std::string bad = good;
    bad.replace(bad.find(from), from.size(), to);
    ASSERT_TRUE(write_file_atomic(join_path(folder_, kRunStatusName), bad));
    const Result<RunStatus> read = read_run_status(folder_);
    ASSERT_FALSE(read) << to;
    EXPECT_EQ(read.error().code, Code::kCorrupt);
    EXPECT_NE(read.error().message.find(kRunStatusName), std::string::npos) << read.error().message;
  }
}

TEST(RunStatus, SaysWhoIsAtWhat) {
  RunView view{
      .folder = "runs/a", .status = status_of_two(), .supervised = true, .newest_checkpoint = 30};
  view.metrics.steps.push_back({.step = 40, .loss = 2.5, .seconds = 2, .tokens_per_s = 1000});
  const std::string text = all_of(lines_of(view, kNow, 0));
  EXPECT_NE(text.find("running since"), std::string::npos) << text;
  EXPECT_NE(text.find("started 2 times"), std::string::npos) << text;
  EXPECT_NE(text.find("40/400"), std::string::npos) << text;
  EXPECT_NE(text.find("ETA 12 min 00 s"), std::string::npos) << text;
  EXPECT_NE(text.find("of step 30, 10 steps ago"), std::string::npos) << text;
  EXPECT_NE(
      text.find(
          "rank 0     training (process 11, silent for 1 min 04 s); in matmul (forward, layer "
          "2), after step 40; a signal has stopped it"),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("rank 1     training (process 12); waits for rank 0"), std::string::npos)
      << text;
  EXPECT_NE(text.find("rank 1 was ended by signal 9"), std::string::npos) << text;
  EXPECT_EQ(text.find("--resume"), std::string::npos) << "nothing is to be done: " << text;
  EXPECT_EQ(text.find("hangs"), std::string::npos) << text;
  view.status->verdict = {.hangs = true, .rank = 1, .text = "rank 1 has been in matmul"};
  EXPECT_NE(all_of(lines_of(view, kNow, 0)).find("hangs      rank 1 has been in matmul\n"),
            std::string::npos);
  view.status->verdict->hangs = false;
  EXPECT_NE(all_of(lines_of(view, kNow, 0)).find("slow       rank 1"), std::string::npos);
}

TEST(RunStatus, SaysWhatToDoWhenNobodyIsAtIt) {
  RunView view{.folder = "runs/a", .status = status_of_two(), .supervised = false};
  view.metrics.steps.push_back({.step = 30, .seconds = 2});
  std::string text = all_of(lines_of(view, kNow, 0));
  EXPECT_NE(text.find("nobody is at it"), std::string::npos) << text;
  EXPECT_NE(text.find("go on with: ferry train a.toml --resume"), std::string::npos) << text;
  EXPECT_EQ(text.find("ETA"), std::string::npos) << text;
  view.status->verdict = {.hangs = true, .rank = 1, .text = "rank 1 has been in matmul"};
  text = all_of(lines_of(view, kNow, 0));
  EXPECT_EQ(text.find("rank 1 has been"), std::string::npos)
      << "a dead run hangs no more: " << text;
  view.status->verdict.reset();

  view.supervised = std::nullopt;  // on another machine
  view.status->host = "elsewhere";
  text = all_of(lines_of(view, kNow, 0));
  EXPECT_EQ(text.find("--resume"), std::string::npos) << text;
  text = all_of(lines_of(view, kNow + 120'000, 0));
  EXPECT_NE(text.find("last heard of 2 min 01 s ago"), std::string::npos) << text;
  EXPECT_NE(text.find("look on elsewhere"), std::string::npos) << text;

  view.status->exit_code = 0;
  view.metrics.steps.push_back({.step = 40});
  text = all_of(lines_of(view, kNow, 0));
  EXPECT_NE(text.find("it was stopped\n"), std::string::npos) << text;
  view.newest_checkpoint = 40;
  text = all_of(lines_of(view, kNow, 0));
  EXPECT_NE(text.find("it was stopped, having saved"), std::string::npos) << text;
  EXPECT_NE(text.find("--resume"), std::string::npos) << text;
  view.metrics.steps.push_back({.step = 400});
  text = all_of(lines_of(view, kNow, 0));
  EXPECT_NE(text.find("it is done"), std::string::npos) << text;
  EXPECT_EQ(text.find("--resume"), std::string::npos) << text;
  view.status->steps = 100;  // it was lowered below what is made
  text = all_of(lines_of(view, kNow, 0));
  EXPECT_NE(text.find("400/400 100%"), std::string::npos) << text;
}

TEST_F(RunStatusFolder, IsLookedAtWithWhatElseLiesThere) {
  EXPECT_EQ(look_at_run(join_path(folder_, "none")).error().code, Code::kNotFound);
  EXPECT_NE(look_at_run(folder_).error().message.find("nothing of a run"), std::string::npos);
  RunStatus s = status_of_two();
  ASSERT_TRUE(write_file_atomic(join_path(folder_, kRunStatusName), to_json(s)));
  ASSERT_TRUE(make_folders(join_path(folder_, "step-00000030")));
  ASSERT_TRUE(write_file_atomic(join_path(folder_, "step-00000030/checksums.json"), "{}"));
  ASSERT_TRUE(make_folders(join_path(folder_, "step-00000040")));  // half-written
  Result<RunView> view = look_at_run(folder_);
  ASSERT_TRUE(view) << view.error().message;
  EXPECT_EQ(view->newest_checkpoint, 30);
  EXPECT_EQ(view->supervised, true);
  ++s.process_began;  // another one of the same number
  ASSERT_TRUE(write_file_atomic(join_path(folder_, kRunStatusName), to_json(s)));
  EXPECT_EQ(look_at_run(folder_)->supervised, false);

  const pid_t gone = ::fork();
  if (gone == 0) {
    ::pause();
    ::_exit(0);
  }
  s.pid = gone;
  s.process_began = process_began(gone).value_or(0);
  ASSERT_TRUE(write_file_atomic(join_path(folder_, kRunStatusName), to_json(s)));
  EXPECT_EQ(look_at_run(folder_)->supervised, true);
  ::kill(gone, SIGKILL);
  siginfo_t ended{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(gone), &ended, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(look_at_run(folder_)->supervised, false) << "a zombie";
  ::waitpid(gone, nullptr, 0);
  EXPECT_EQ(look_at_run(folder_)->supervised, false);
}

TEST_F(RunStatusFolder, WhatIsHarmedIsToldAndTheRestShown) {
  ASSERT_TRUE(write_file_atomic(join_path(folder_, kRunStatusName), to_json(status_of_two())));
  ASSERT_TRUE(write_file_atomic(join_path(folder_, "metrics.jsonl"), std::string(10, '\0') + "\n"));
  const Result<RunView> view = look_at_run(folder_);
  ASSERT_TRUE(view) << view.error().message;
  const std::string text = all_of(lines_of(*view, kNow, 0));
  EXPECT_NE(text.find("unread     "), std::string::npos) << text;
  EXPECT_NE(text.find("running since"), std::string::npos) << text;
}

TEST(RunStatus, WritesNothingOnTerminalsButText) {
  RunView view{.folder = "a\nb", .status = status_of_two()};
  view.status->said[0].text = "\x1b]0;title\x07";
  for (const std::string& line : lines_of(view, kNow, 0))
    for (const char c : line) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << line;
}

// Where numbers of processes mean others, nothing is known of that one.
TEST_F(RunStatusFolder, ProcessesElsewhereAreNotTakenForDead) {
  RunStatus s = status_of_two();
  s.process_namespace = "pid:[1] elsewhere";
  ++s.process_began;
  ASSERT_TRUE(write_file_atomic(join_path(folder_, kRunStatusName), to_json(s)));
  EXPECT_EQ(look_at_run(folder_)->supervised, std::nullopt);
}

TEST_F(RunStatusFolder, TheLastOneIsWritten) {
  const auto file =
      RunStatusFile::open(folder_, [](const Status& why) { ADD_FAILURE() << why.message; });
  ASSERT_TRUE(file);
  RunStatus s = status_of_two();
  for (s.starts = 1; s.starts <= 100; ++s.starts) (*file)->put(s);
  for (int i = 0; i < 1000; ++i) {
    const Result<RunStatus> read = read_run_status(folder_);
    if (read && read->starts == 100) break;
    sleep_s(0.01);
  }
  EXPECT_EQ(read_run_status(folder_)->starts, 100);
  s.exit_code = 0;
  (*file)->put(s);
  ASSERT_TRUE((*file)->flush(60));
  EXPECT_EQ(read_run_status(folder_)->exit_code, 0);
}

/// A worker of few steps may be gone, and heard of no more, when what it said is shown.
TEST_F(RunStatusFolder, AWorkerIsKnownFromItsStartOn) {
  const auto file =
      RunStatusFile::open(folder_, [](const Status& why) { ADD_FAILURE() << why.message; });
  ASSERT_TRUE(file);
  ASSERT_TRUE(write_file_atomic(join_path(folder_, ".lock"), "99999997"));
  RunStatus s = status_of_two();
  s.ranks.clear();
  (*file)->put(s);
  EXPECT_TRUE((*file)->flush(60));
  EXPECT_FALSE(read_run_status(folder_));
  (*file)->add_worker(99999997);
  (*file)->put(s);
  EXPECT_TRUE((*file)->flush(60));
  EXPECT_TRUE(read_run_status(folder_));
  const Result<bool> ours = (*file)->ours();
  EXPECT_TRUE(ours && *ours);
}

/// Whose lock it is decides, not that the folder has its name still.
TEST_F(RunStatusFolder, InAFolderOfAnotherRunNothingIsWritten) {
  const auto file =
      RunStatusFile::open(folder_, [](const Status& why) { ADD_FAILURE() << why.message; });
  ASSERT_TRUE(file);
  RunStatus s = status_of_two();
  ASSERT_FALSE(s.ranks.empty());
  const auto locked_by = [&](const std::string& holder) {
    ASSERT_TRUE(write_file_atomic(join_path(folder_, ".lock"), holder));
  };
  const auto put = [&](int64_t starts) {
    s.starts = starts;
    (*file)->put(s);
    EXPECT_TRUE((*file)->flush(60));
    const Result<RunStatus> read = read_run_status(folder_);
    return read ? read->starts : -1;
  };
  for (const RankStatus& r : s.ranks) (*file)->add_worker(r.pid);
  locked_by(std::to_string(s.ranks.front().pid));
  EXPECT_EQ(put(1), 1);
  // Between two workers there is none; the lock names the one before.
  s.ranks.clear();
  EXPECT_EQ(put(2), 2);
  for (const char* const other : {"99999999", ""}) {
    locked_by(other);
    EXPECT_EQ(put(3), 2) << other;
    const Result<bool> ours = (*file)->ours();
    EXPECT_TRUE(ours && !*ours);
  }
  // A worker that follows.
  locked_by("99999998");
  (*file)->add_worker(99999998);
  EXPECT_EQ(put(4), 4);
}

TEST_F(RunStatusFolder, ThatItCannotBeWrittenIsToldOnce) {
  std::atomic<int> told = 0;
  const auto file = RunStatusFile::open(join_path(folder_, "none"), [&](const Status&) { ++told; });
  ASSERT_TRUE(file);
  for (int i = 0; i < 20; ++i) {
    (*file)->put(status_of_two());
    sleep_s(0.005);
  }
  EXPECT_TRUE((*file)->flush(60));
  EXPECT_EQ(told, 1);
}

}  // namespace
}  // namespace ferry
