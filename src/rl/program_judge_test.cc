// Programs that judge, and what hostile ones can do: nothing, and be worth nothing.
#include "rl/program_judge.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/clock.h"
#include "base/file.h"

namespace ferry::rl {
namespace {

/// As root the programs are nobody's.
void let_others_read(const std::string& path) {
  using std::filesystem::perms;
  std::filesystem::permissions(
      path, perms::others_read | perms::others_exec, std::filesystem::perm_options::add);
}

ProgramVerdict verdict(const std::string& command, const std::string& input = "{}") {
  let_others_read(testing::TempDir());
  const auto judge = ProgramJudge::create(
      {.command = command, .folder = testing::TempDir(), .seconds = 3, .memory_mb = 128});
  if (!judge) {
    ADD_FAILURE() << judge.error().message;
    return {.worth = -1};
  }
  const auto verdicts = judge->verdicts(std::vector<std::string>{input}, [] { return true; });
  return verdicts ? (*verdicts)[0] : ProgramVerdict{.worth = -1};
}

double worth(const std::string& command, const std::string& input = "{}") {
  return verdict(command, input).worth;
}

TEST(ProgramJudge, ReadsTheVerdict) {
  EXPECT_EQ(worth("echo some talk; echo 0.5"), 0.5);
  EXPECT_EQ(worth("grep -q right && echo 1", "{\"answer\": \"right\"}"), 1);
  EXPECT_EQ(worth("grep -q right && echo 1", "{\"answer\": \"wrong\"}"), 0);
  ASSERT_TRUE(write_file_atomic(join_path(testing::TempDir(), "verdict"), "0.25\n"));
  let_others_read(join_path(testing::TempDir(), "verdict"));
  EXPECT_EQ(worth("cat /judge/verdict"), 0.25);
  for (const char* bad : {"echo 2",
                          "echo -1",
                          "echo nan",
                          "echo 1e999",
                          "echo yes",
                          "true",
                          "echo 1; exit 1",
                          "echo 1; kill -9 $$",
                          "/no/such/program",
                          "echo 1; echo '<- that is it'"})
    EXPECT_EQ(worth(bad), 0) << bad;
}

TEST(ProgramJudge, SaysHowAProgramEnded) {
  using enum ProgramEnd;
  const auto ends = [](const std::string& command, ProgramEnd end, int number, const char* said) {
    const ProgramVerdict v = verdict(command);
    EXPECT_EQ(v.worth, 0) << command;
    EXPECT_EQ(v.end, end) << command;
    EXPECT_EQ(v.number, number) << command;
    EXPECT_NE(v.said.find(said), std::string::npos) << command << ": " << v.said;
  };
  EXPECT_EQ(verdict("echo 0; echo no >&2").end, kVerdict);
  EXPECT_EQ(verdict("echo 0; echo no >&2").said, "");
  ends("echo 1; echo Traceback >&2; exit 3", kStatus, 3, "Traceback");
  ends("echo 1; echo oh >/dev/stderr; exit 3", kStatus, 3, "oh");
  ends("/no/such/program", kStatus, 127, "/no/such/program");
  ends("echo 1; kill -9 $$", kSignal, 9, "");
  ends("echo True", kNoNumber, 0, "True");
  ends("echo nan", kNoNumber, 0, "nan");
  ends("echo True; echo why >&2", kNoNumber, 0, "why");
  ends("echo 1; echo slow >&2; sleep 1000", kTime, 0, "slow");
  ends("yes 1", kTooMuch, 0, "");
  // A flood of complaints is read, and its end kept.
  const ProgramVerdict flood = verdict("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end >&2");
  EXPECT_EQ(flood.end, kNoNumber);
  EXPECT_LE(flood.said.size(), 1024u);
  EXPECT_TRUE(flood.said.ends_with("xxxend\n")) << flood.said;
}

/// A look that comes late is no fault of the program's.
TEST(ProgramJudge, WhatEndedInTimeCountsHoweverLateItIsSeen) {
  const auto judge = ProgramJudge::create({.command = "read s; sleep $s; echo 1", .seconds = 1});
  ASSERT_TRUE(judge) << judge.error().message;
  const auto with_a_pause = [&](const std::string& sleeps) {
    int looks = 0;
    const auto verdicts = judge->verdicts(std::vector<std::string>{sleeps}, [&] {
      if (looks++ == 0) ::sleep(2);
      return true;
    });
    return verdicts ? (*verdicts)[0] : ProgramVerdict{.worth = -1};
  };
  EXPECT_EQ(with_a_pause("0\n").worth, 1);
  // Nor does the time count in which nobody looked; what is left of its own does.
  EXPECT_EQ(with_a_pause("2.1\n").worth, 1);
  EXPECT_EQ(with_a_pause("30\n").end, ProgramEnd::kTime);
}

TEST(ProgramTally, TellsWhetherTheCommandIsWrong) {
  const ProgramVerdict missing{
      .end = ProgramEnd::kStatus, .number = 2, .said = "can't open\n'/judge/chekc.py'\x1b[2J\n"};
  ProgramTally tally;
  for (int i = 0; i < 3; ++i) tally.add(missing);
  EXPECT_FALSE(tally.is_broken());  // so few may be an accident
  tally.add(missing);
  EXPECT_TRUE(tally.is_broken());
  EXPECT_EQ(tally.failed(), 4);
  for (const char* part :
       {"4 of 4 programs", "4 with a status", "with status 2", "can't open '/judge/chekc.py'?[2J"})
    EXPECT_NE(tally.told().find(part), std::string::npos) << tally.told();
  EXPECT_EQ(tally.told().find('\x1b'), std::string::npos);
  ProgramTally twice = tally;
  twice.add(tally);
  EXPECT_TRUE(twice.is_broken());
  EXPECT_EQ(twice.judged(), 8);
  // One that judges, one that says something else, and the command is not what is wrong.
  for (const ProgramVerdict& other :
       {ProgramVerdict{.worth = 0},
        ProgramVerdict{.end = ProgramEnd::kStatus, .number = 2, .said = "other"}}) {
    ProgramTally mixed = tally;
    mixed.add(other);
    EXPECT_FALSE(mixed.is_broken());
    ProgramTally joined;
    joined.add(other);
    joined.add(tally);
    EXPECT_FALSE(joined.is_broken());
  }
  // `grep && echo 1` says no without a word; a time is the machine's, too.
  for (const ProgramVerdict& v : {ProgramVerdict{.end = ProgramEnd::kStatus, .number = 1},
                                  ProgramVerdict{.end = ProgramEnd::kTime, .said = "slow"}}) {
    ProgramTally silent;
    for (int i = 0; i < 8; ++i) silent.add(v);
    EXPECT_FALSE(silent.is_broken());
    EXPECT_EQ(silent.failed(), 8);
  }
}

TEST(ProgramJudge, HostileOnesAreZeros) {
  const double begin = system_clock().monotonic_s();
  const std::string mark = join_path(testing::TempDir(), "mark");
  ASSERT_TRUE(write_file_atomic(mark, "here"));
  for (const std::string& bad : {
           std::string("yes 1"),                                     // output without end
           std::string("sleep 1000; echo 1"),                        // hangs
           std::string("(sleep 1000 &) ; echo 1; exec sleep 1000"),  // and says so first
           std::string("while :; do :; done; echo 1"),
           std::string("bomb() { bomb | bomb & }; bomb; sleep 1000; echo 1"),
           std::string("dd if=/dev/zero of=/tmp/big bs=1M count=200 2>/dev/null && echo 1"),
           std::string("x=$(head -c 300000000 /dev/zero | tr '\\0' a) && echo 1"),
           std::string("cat /etc/passwd && echo 1"),
           "cat " + mark + " && echo 1",  // a path of the machine's
           std::string("echo 1 > /judge/mark && echo 1"),
           std::string("echo 1 > /usr/mark && echo 1"),
           std::string("ls /sys/class/net/*/address 2>/dev/null | grep -q . && echo 1"),
           // Memory by another name, beyond what is counted.
           std::string("echo 1 > /mark && echo 1"),
           std::string("mkdir /folder && echo 1"),
           std::string("echo 1 > /dev/mark && echo 1"),
           std::string("head -c 20000000 /dev/zero > /dev/shm/big && echo 1"),
           std::string("bash -c 'for i in {1..80}; do exec {f}</dev/null || exit; done; echo 1'"),
           std::string("unshare --user --map-root-user true && echo 1"),
       })
    EXPECT_EQ(worth(bad), 0) << bad;
  EXPECT_LT(system_clock().monotonic_s() - begin, 60);
  EXPECT_EQ(*read_file(mark), "here");
}

/// A socket that listens on this machine, and its port.
class Listener {
 public:
  Listener() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(socket_, any, size) == 0 && ::listen(socket_, 4) == 0 &&
        ::getsockname(socket_, any, &size) == 0)
      port_ = ntohs(address.sin_port);
  }
  ~Listener() { ::close(socket_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  int port() const { return port_; }

 private:
  int socket_;
  int port_ = 0;
};

TEST(ProgramJudge, HasNoNetwork) {
  const Listener listener;
  ASSERT_GT(listener.port(), 0);
  const std::string connect =
      fmt::format("bash -c 'exec 9<>/dev/tcp/127.0.0.1/{}' && echo 1", listener.port());
  ASSERT_EQ(std::system((connect + " >/dev/null").c_str()), 0);  // from here it can be reached
  EXPECT_EQ(worth(connect), 0);
  const std::string mine = std::filesystem::read_symlink("/proc/self/ns/net").string();
  ASSERT_EQ(mine.substr(0, 5), "net:[");
  EXPECT_EQ(worth("[ \"$(readlink /proc/self/ns/net)\" = '" + mine + "' ] && echo 1"), 0);
  EXPECT_EQ(worth("[ -n \"$(readlink /proc/self/ns/net)\" ] && echo 1"), 1);
}

TEST(ProgramJudge, MayDoWhatItIsFor) {
  for (const char* good : {"echo 1 > /tmp/mark && cat /tmp/mark",
                           "echo 1 > /dev/shm/mark && cat /dev/shm/mark",
                           "echo lost > /dev/null && echo 1",
                           "[ $(cat /proc/self/oom_score_adj) = 1000 ] && echo 1"})
    EXPECT_EQ(worth(good), 1) << good;
}

/// A bubblewrap that knows no way to forbid namespaces still makes a sandbox, and that is told.
TEST(ProgramJudge, AWeakerSandboxIsTold) {
  const std::string folder = testing::TempDir(), path = std::getenv("PATH");
  let_others_read(folder);
  const std::string old = join_path(folder, "bwrap");
  ASSERT_TRUE(
      write_file_atomic(old,
                        "#!/bin/sh\ncase \" $* \" in *' --disable-userns '*) exit 1;; esac\n"
                        "PATH='" +
                            path + "' exec bwrap \"$@\"\n"));
  std::filesystem::permissions(old, std::filesystem::perms(0755));
  ASSERT_EQ(::setenv("PATH", (folder + ":" + path).c_str(), 1), 0);
  const auto judge = ProgramJudge::create({.command = "echo 1"});
  ASSERT_EQ(::setenv("PATH", path.c_str(), 1), 0);
  ASSERT_TRUE(judge) << judge.error().message;
  EXPECT_NE(judge->weakness().find("namespaces"), std::string::npos) << judge->weakness();
}

TEST(ProgramJudge, ManyAtOnceAndInOrder) {
  const auto judge = ProgramJudge::create({.command = "cat", .seconds = 20, .at_once = 4});
  ASSERT_TRUE(judge) << judge.error().message;
  const std::vector<std::string> inputs = {"0", "0.125", "0.25", "x", "0.5", "1"};
  const auto verdicts = judge->verdicts(inputs, [] { return true; });
  ASSERT_TRUE(verdicts);
  const double worth[] = {0, 0.125, 0.25, 0, 0.5, 1};
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_EQ((*verdicts)[i].worth, worth[i]) << inputs[i];
  int asked = 0;
  const auto stopped = judge->verdicts(inputs, [&] { return ++asked < 2; });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, Code::kTimeout);
  EXPECT_FALSE(ProgramJudge::create({.command = "echo 1", .folder = "/no/such"}));
}

}  // namespace
}  // namespace ferry::rl
