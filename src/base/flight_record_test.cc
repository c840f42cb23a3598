// What a process is in is told while it is in it, read by another process, and by nobody who has no such memory.
#include "base/flight_record.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/alive.h"
#include "base/child_process.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/flight_reader.h"
#include "base/system.h"

namespace ferry::flight {
namespace {

TEST(FlightRecord, TellsWhatTheThreadIsInAndWhatItWasInBefore) {
  const Own own;
  EXPECT_EQ(own.read().activity, Activity::kHost);
  EXPECT_EQ(own.read().layer, -1);
  set_work(3, 12, 1);
  set_pass(Pass::kBackward);
  set_layer(2);
  {
    const In data(Activity::kData);
    EXPECT_EQ(own.read().activity, Activity::kData);
    {
      const In sync("sync", "/a/folder/model.safetensors", 77);
      const Snapshot s = own.read();
      EXPECT_EQ(s.activity, Activity::kFile);
      EXPECT_EQ(s.call, "sync");
      EXPECT_EQ(s.path, "/a/folder/model.safetensors");
      EXPECT_EQ(s.file_bytes, 77u);
    }
    EXPECT_EQ(own.read().activity, Activity::kData);
  }
  {
    const InOp op("matmul");
    const Snapshot s = own.read();
    EXPECT_EQ(s.activity, Activity::kOp);
    EXPECT_EQ(s.op, "matmul");
    EXPECT_FALSE(s.op_known) << "it has not come to an end yet";
    EXPECT_EQ(s.pass, Pass::kBackward);
    EXPECT_EQ(s.layer, 2);
    EXPECT_EQ(s.work, 3);
    EXPECT_EQ(s.step, 12);
    EXPECT_EQ(s.done, 1);
  }
  EXPECT_EQ(own.read().activity, Activity::kHost);
  EXPECT_EQ(own.read().op, "matmul") << "the last one";
  const std::string longer(200, 'x');
  const In open("open", longer + "/end");
  EXPECT_EQ(own.read().path, std::string(91, 'x') + "/end") << "of a long path the end says more";
}

TEST(FlightRecord, EveryCallAboutAFileIsOneToWhoeverLooks) {
  const std::string folder = testing::TempDir() + "/flight-calls", file = folder + "/file";
  ASSERT_TRUE(make_folders(folder));
  ASSERT_TRUE(write_file_atomic(file, "some"));
  std::optional<FileWriter> writer(*FileWriter::create(folder + "/written"));
  std::optional<FileReader> reader(*FileReader::open(file));
  std::optional<FileHold> hold(*FileHold::shared(file));
  std::optional<FolderLock> lock;
  std::optional<FolderClaim> claim;
  const std::vector<std::pair<std::string, std::function<void()>>> calls = {
      {"write", [&] { EXPECT_TRUE(writer->write("x", 1)); }},
      {"sync", [&] { EXPECT_TRUE(writer->sync()); }},
      {"close", [&] { EXPECT_TRUE(writer->close()); }},
      {"close", [&] { reader.reset(); }},
      {"close", [&] { hold.reset(); }},
      {"lock", [&] { lock = *FolderLock::acquire(folder); }},
      {"close", [&] { lock.reset(); }},
      {"lock", [&] { claim = *FolderClaim::wait(folder); }},
      {"close", [&] { claim.reset(); }},
      {"lock", [&] { claim = **FolderClaim::try_now(folder); }},
      {"lock", [&] { hold = *FileHold::alone(file); }},
      {"read", [&] { EXPECT_TRUE(read_file(file, 100)); }},
      {"map", [&] { EXPECT_TRUE(MappedFile::open(file)); }},
      {"write", [&] { EXPECT_TRUE(write_private_file(folder + "/secret", "s")); }},
      {"mkdir", [&] { EXPECT_TRUE(create_folder(folder + "/new")); }},
      {"mkdir", [&] { EXPECT_TRUE(make_folders(folder + "/newer/still")); }},
      {"find", [&] { EXPECT_TRUE(is_there(file)); }},
      {"find", [&] { EXPECT_TRUE(path_exists(file)); }},
      {"find", [&] { EXPECT_FALSE(is_folder(file)); }},
      {"find", [&] { EXPECT_EQ(link_target(file), ""); }},
      {"size", [&] { EXPECT_TRUE(file_size(file)); }},
      {"free space", [&] { EXPECT_TRUE(free_disk_bytes(folder)); }},
      {"list", [&] { EXPECT_TRUE(list_folder(folder)); }},
      {"rename", [&] { EXPECT_TRUE(exchange_paths(file, folder + "/secret")); }},
      {"sync", [&] { EXPECT_TRUE(rename_path(file, file + "2")); }},  // of the folder, at last
      {"sync", [&] { EXPECT_TRUE(sync_folder(folder)); }},
      {"remove", [&] { EXPECT_TRUE(remove_tree(folder)); }},
  };
  for (size_t i = 0; i < calls.size(); ++i) {
    const Own own;
    calls[i].second();
    EXPECT_EQ(own.read().call, calls[i].first) << "call " << i;
    EXPECT_EQ(own.read().activity, Activity::kHost) << "call " << i;
  }
}

TEST(FlightRecord, KnowsWhichOpsHaveComeToAnEnd) {
  const Own own;
  static constexpr const char* kOp = "rms_norm";
  for (const bool known : {false, true}) {
    const InOp op(kOp);
    EXPECT_EQ(own.read().op_known, known);
  }
}

TEST(FlightRecord, EverythingThatGetsOnMovesItAndALookDoesNot) {
  const Own own;
  uint64_t before = own.read().moves;
  const auto moved_since = [&] {
    const uint64_t now = own.read().moves;
    return std::exchange(before, now) != now;
  };
  still_alive();
  EXPECT_TRUE(moved_since());
  { const InOp op("add"); }
  EXPECT_TRUE(moved_since());
  { const In data(Activity::kData); }
  EXPECT_TRUE(moved_since());
  set_chip(20, 16, "add");
  EXPECT_TRUE(moved_since());
  set_chip(20, 16, "add");
  EXPECT_FALSE(moved_since()) << "nothing ended";
  looked();
  EXPECT_FALSE(moved_since());
  EXPECT_EQ(own.read().looks, 1u);
}

TEST(FlightRecord, ALinkHasItsMessagesAndItsBytes) {
  const Own own;
  const Message out{4, 3, 12, 1000, 500}, in{6, 0, 12, 64, 0};
  set_out(1, out, 500);
  set_in(1, in, 7000);
  set_out(kLinksMax, out, 1);  // no such link
  set_in(-1, in, 1);
  const Snapshot s = own.read(3);
  ASSERT_EQ(s.links.size(), 3u);
  EXPECT_EQ(s.links[1].out, out);
  EXPECT_EQ(s.links[1].in, in);
  EXPECT_EQ(s.links[1].sent, 500u);
  EXPECT_EQ(s.links[1].received, 7000u);
  EXPECT_EQ(s.links[0].out.purpose, 0u);
}

TEST(FlightRecord, IsReadWhileItsProcessIsStopped) {
  Result<Memory> memory = Memory::create();
  ASSERT_TRUE(memory) << memory.error().message;
  const pid_t child = ::fork();
  if (child == 0) {
    if (!adopt(::dup(memory->fd()))) ::_exit(1);
    set_work(3, 8, 0);
    const InOp op("attention");
    ::kill(::getpid(), SIGSTOP);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  const Snapshot s = memory->read(1);
  EXPECT_EQ(s.op, "attention");
  EXPECT_EQ(s.activity, Activity::kOp);
  EXPECT_EQ(s.step, 8);
  const std::optional<ProcessLook> look = look_at_process(child);
  ASSERT_TRUE(look);
  EXPECT_EQ(look->state, 'T');
  ::kill(child, SIGCONT);
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_FALSE(look_at_process(child));
}

TEST(FlightRecord, WritesIntoNothingElse) {
  const std::string path = ::testing::TempDir() + "no_flight_record";
  ASSERT_TRUE(write_file_atomic(path, "precious"));
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_FALSE(adopt(fd));
  EXPECT_FALSE(adopt(-1));
  ::close(fd);
  const InOp op("add");  // nobody reads
  EXPECT_EQ(*read_file(path), "precious");
}

TEST(FlightRecord, CannotBeMadeShorterByTheProcessThatWritesIt) {
  const Result<Memory> memory = Memory::create();
  ASSERT_TRUE(memory);
  EXPECT_NE(::ftruncate(memory->fd(), 0), 0);
  EXPECT_EQ(memory->read(2).links.size(), 2u);
}

TEST(FlightRecord, AnOpIsAFaultPointByItsNameAndByItsLayer) {
  const Own own;
  arm_faults("op.matmul:2:count,op.matmul.3:1:count");
  set_layer(3);
  { const InOp op("matmul"); }
  set_layer(4);
  { const InOp op("matmul"); }
  EXPECT_EQ(fault_point_count("op.matmul"), 2);
  EXPECT_EQ(fault_point_count("op.matmul.3"), 1);
  arm_faults("");
}

TEST(Fault, OfARankIsThatRanksAlone) {
  arm_faults("here@1:1:eio,there@0:1:eio,all:*:eio");
  EXPECT_EQ(fault_point("here"), 0);
  EXPECT_EQ(fault_point("there"), EIO);
  EXPECT_EQ(fault_point("all"), EIO);
  arm_faults("here@1:1:eio,there@0:1:eio");
  set_fault_rank(1);
  EXPECT_EQ(fault_point("here"), EIO);
  EXPECT_EQ(fault_point("there"), 0);
  set_fault_rank(0);
  arm_faults("");
  EXPECT_EXIT(arm_faults("here@one:1:eio"), ::testing::ExitedWithCode(2), "NAME");
}

TEST(ProcessLook, TellsWorkFromSleep) {
  const auto busy =
      ChildProcess::start({.program = "/bin/sh", .arguments = {"sh", "-c", "while :; do :; done"}});
  const auto idle = ChildProcess::start({.program = "/bin/sleep", .arguments = {"sleep", "1000"}});
  ASSERT_TRUE(busy && idle);
  std::optional<ProcessLook> works, sleeps;
  for (int i = 0; i < 1000 && !(works && works->processor_s >= 0.05); ++i) {
    ::usleep(10000);
    works = look_at_process(busy->pid());
    sleeps = look_at_process(idle->pid());
  }
  ASSERT_TRUE(works && sleeps);
  EXPECT_TRUE(works->runnable);
  EXPECT_EQ(works->state, 'R');
  EXPECT_GE(works->processor_s, 0.05);
  EXPECT_EQ(works->first_s, works->processor_s) << "it has one thread";
  EXPECT_FALSE(sleeps->runnable);
  EXPECT_EQ(sleeps->state, 'S');
  EXPECT_LT(sleeps->processor_s, 0.05);
}

}  // namespace
}  // namespace ferry::flight
