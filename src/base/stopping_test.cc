// What a process does that is asked to end, in children: what they have heard they cannot unhear.
#include "base/stopping.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>

#include "base/clock.h"
#include "base/file.h"

namespace ferry {
namespace {

/// How a child ends that does this: its status, or 256 and the signal.
int end_of(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

TEST(Signals, TheFirstIsKeptAndASecondEndsTheProcess) {
  EXPECT_EQ(signal_name(SIGINT), "SIGINT");
  const auto first = [] {
    answer_stop_signals();
    if (stop_signal() != 0) return 1;
    ::raise(SIGTERM);
    if (stop_signal() != SIGTERM) return 2;
    ::raise(SIGTERM);  // an echo
    ::raise(SIGINT);
    return stop_signal() == SIGTERM ? 0 : 3;
  };
  EXPECT_EQ(end_of(first), 0);
  EXPECT_EQ(end_of([&] {
              first();
              sleep_s(0.6);
              ::raise(SIGINT);
              return 4;
            }),
            256 + SIGINT);
  // Nor is one answered while another is.
  EXPECT_EQ(end_of([] {
              answer_stop_signals();
              struct sigaction action {};
              ::sigaction(SIGTERM, nullptr, &action);
              return ::sigismember(&action.sa_mask, SIGINT) == 1 ? 0 : 1;
            }),
            0);
  // What the caller ignores stays ignored.
  EXPECT_EQ(end_of([] {
              ::signal(SIGINT, SIG_IGN);
              answer_stop_signals();
              ::raise(SIGINT);
              return stop_signal();
            }),
            0);
}

TEST(Signals, WhoHasNothingMoreToWriteIsEndedAtOnce) {
  EXPECT_EQ(end_of([] {
              stop_files_by_signals();
              answer_stop_signals_no_more();
              ::raise(SIGTERM);
              return stop_signal();
            }),
            256 + SIGTERM);
  // What came before is known, and what the caller ignores stays ignored.
  EXPECT_EQ(end_of([] {
              ::signal(SIGHUP, SIG_IGN);
              stop_files_by_signals();
              ::raise(SIGTERM);
              answer_stop_signals_no_more();
              ::raise(SIGHUP);
              return stop_signal();
            }),
            SIGTERM);
}

TEST(Signals, WhoWritesTakesBackWhatIsHalfWritten) {
  const std::string folder = testing::TempDir() + "/signals", path = folder + "/file";
  std::filesystem::create_directories(folder);
  ASSERT_TRUE(write_file_atomic(path, "old"));
  const auto stopped = [&](bool asks_for_files) {
    if (asks_for_files)
      stop_files_by_signals();
    else
      answer_stop_signals();
    std::optional<Status> why;
    const Result<void> written = write_file_atomic(path, [&](FileWriter& out) -> Result<void> {
      TRY(out.write("half"));
      ::raise(SIGTERM);
      return out.write("whole");
    });
    if (!written) why = written.error();
    if (written || why->message.find("stopped by SIGTERM") == std::string::npos)
      return written ? 1 : 2;
    end_as_by_stop_signal();
    return 3;
  };
  EXPECT_EQ(end_of([&] { return stopped(true); }), 256 + SIGTERM);
  EXPECT_EQ(list_folder(folder).value(), std::vector<std::string>{"file"});
  EXPECT_EQ(read_file(path).value(), "old");
  EXPECT_EQ(end_of([&] { return stopped(false); }), 1) << "who has something to save writes on";
  EXPECT_EQ(read_file(path).value(), "halfwhole");
  EXPECT_EQ(end_of([] {
              end_as_by_stop_signal();
              return 0;
            }),
            0);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace ferry
