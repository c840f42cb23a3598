// Children that speak, end, hang or cannot be started, and that never outlive their owner.
#include "base/child_process.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

namespace ferry {
namespace {

ChildProcess shell(const std::string& script, std::vector<int> ignored = {}) {
  Result<ChildProcess> child = ChildProcess::start(
      {.program = "/bin/sh", .arguments = {"sh", "-c", script}, .ignored = std::move(ignored)});
  EXPECT_TRUE(child) << child.error().message;
  return std::move(*child);
}

std::string all_of(const ChildProcess& child) {
  std::string text;
  char buffer[256];
  for (ssize_t n; (n = ::read(child.pipe(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  return text;
}

bool is_alive(const std::string& pid) { return ::kill(std::stoi(pid), 0) == 0; }

TEST(ChildProcess, TellsThroughItsPipeAndEnds) {
  ChildProcess child = shell("echo one >&3; echo two >&3; exit 7");
  EXPECT_EQ(all_of(child), "one\ntwo\n");
  const int status = child.wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(child.ended(), std::nullopt);
  child.signal(SIGKILL);  // to nobody
}

TEST(ChildProcess, ReadsWhatItIsHanded) {
  std::string text(200000, 'x');  // more than a pipe holds
  for (int start = 0; start < 2; ++start) {
    Result<ChildProcess> child =
        ChildProcess::start({.program = "/bin/sh",
                             .arguments = {"sh", "-c", "cat /proc/self/fd/4 >&3"},
                             .handed = text});
    ASSERT_TRUE(child) << child.error().message;
    EXPECT_EQ(all_of(*child), text);
    child->wait();
    text = "the second";
  }
  EXPECT_EQ(ChildProcess::take_handed().error().code, Code::kInvalidInput);
}

TEST(ChildProcess, HasTheDescriptorThatItIsLent) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  Result<ChildProcess> child = ChildProcess::start({.program = "/bin/sh",
                                                    .arguments = {"sh", "-c", "cat <&5 >&3"},
                                                    .handed = "text",
                                                    .lent = ends[0]});
  ASSERT_TRUE(child) << child.error().message;
  ::close(ends[0]);
  ASSERT_EQ(::write(ends[1], "lent", 4), 4);
  ::close(ends[1]);
  EXPECT_EQ(all_of(*child), "lent");
  child->wait();
}

TEST(ChildProcess, IsSeenToBeStopped) {
  const ChildProcess child = shell("echo ready >&3; exec 3>&-; exec sleep 60");
  EXPECT_EQ(all_of(child), "ready\n");
  EXPECT_FALSE(child.stopped());
  const auto becomes = [&](bool stopped) {
    for (int ms = 0; ms < 60000 && child.stopped() != stopped; ++ms)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return child.stopped() == stopped;
  };
  child.signal(SIGSTOP);
  EXPECT_TRUE(becomes(true));
  EXPECT_TRUE(child.stopped());  // until it goes on
  child.signal(SIGCONT);
  EXPECT_TRUE(becomes(false));
}

TEST(ChildProcess, SignalsReachItUnlessItIgnoresThem) {
  ChildProcess child = shell("echo ready >&3; exec 3>&-; exec sleep 60", {SIGINT});
  EXPECT_EQ(all_of(child), "ready\n");
  child.signal(SIGINT);
  EXPECT_EQ(child.ended(), std::nullopt);
  child.signal(SIGTERM);
  const int status = child.wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

TEST(ChildProcess, ANonblockingPipeDoesNotWait) {
  Result<ChildProcess> child = ChildProcess::start(
      {.program = "/bin/sleep", .arguments = {"sleep", "60"}, .nonblocking = true});
  ASSERT_TRUE(child);
  char byte;
  EXPECT_EQ(::read(child->pipe(), &byte, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
}

// Not with 2: it is no verdict on what anybody gave, and may be for want of memory.
TEST(ChildProcess, AProgramThatIsNotExecutedEndsWithAStatusOfItsOwn) {
  Result<ChildProcess> child =
      ChildProcess::start({.program = "/nonexistent/program", .arguments = {"program"}});
  ASSERT_TRUE(child);
  const int status = child->wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == ChildProcess::kNotExecuted);
}

TEST(ChildProcess, ItsComplaintsAreHeard) {
  Result<ChildProcess> child = ChildProcess::start(
      {.program = "/bin/sh",
       .arguments = {"sh", "-c", "echo one >&3; echo two >&2; echo three >/dev/stderr"},
       .heard = true});
  ASSERT_TRUE(child) << child.error().message;
  EXPECT_EQ(all_of(*child), "one\n");
  child->wait();
  char buffer[256];
  const ssize_t n = ::read(child->complaints(), buffer, sizeof buffer);
  ASSERT_GT(n, 0);
  EXPECT_EQ(std::string(buffer, static_cast<size_t>(n)), "two\nthree\n");
  EXPECT_EQ(shell("exit 0").complaints(), -1);
}

TEST(ChildProcess, EndsWithItsOwner) {
  std::string pid;
  {
    const ChildProcess child = shell("echo $$ >&3; exec 3>&-; exec sleep 60");
    pid = all_of(child);
    EXPECT_TRUE(is_alive(pid));
  }
  EXPECT_FALSE(is_alive(pid));
}

TEST(ChildProcess, IsToldThingsUntilItIsToldNoMore) {
  Result<ChildProcess> child = ChildProcess::start(
      {.program = "/bin/sh",
       .arguments = {"sh",
                     "-c",
                     "while read -r line <&7; do echo \"$line!\" >&3; done; echo end >&3"},
       .told = true});
  ASSERT_TRUE(child) << child.error().message;
  EXPECT_TRUE(child->tell("one\n"));
  EXPECT_TRUE(child->tell("two\n"));
  child->tell_no_more();
  EXPECT_FALSE(child->tell("three\n"));
  EXPECT_EQ(all_of(*child), "one!\ntwo!\nend\n");
}

TEST(ChildProcess, EndsWithItsOwnerThatIsKilled) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t owner = ::fork();
  if (owner == 0) {
    const ChildProcess child = shell("echo $$ >&3; exec 3>&-; exec sleep 60");
    const std::string pid = all_of(child);
    (void)!::write(ends[1], pid.data(), pid.size());
    for (;;) ::pause();
  }
  char buffer[32] = {};
  ASSERT_GT(::read(ends[0], buffer, sizeof buffer - 1), 0);
  ::kill(owner, SIGKILL);
  ASSERT_EQ(::waitpid(owner, nullptr, 0), owner);
  // Whoever adopts it may not have asked for its end yet: a zombie is dead enough.
  const std::string stat = "/proc/" + std::to_string(std::stoi(buffer)) + "/stat";
  bool gone = false;
  for (int ms = 0; ms < 20000 && !gone; ms += 10) {
    FILE* const file = std::fopen(stat.c_str(), "r");
    char state = 'Z';
    if (file != nullptr) {
      EXPECT_EQ(std::fscanf(file, "%*d %*s %c", &state), 1);
      std::fclose(file);
    }
    gone = state == 'Z' || state == 'X';
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(gone);
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace ferry
