// The foundation of all: checks, results, files, faults, randomness, threads.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/alive.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/input_file.h"
#include "base/mapped_faults.h"
#include "base/markup.h"
#include "base/named_file.h"
#include "base/os_error.h"
#include "base/patient_output.h"
#include "base/random.h"
#include "base/stopping.h"
#include "base/threads.h"
#include "base/units.h"

namespace ferry {
namespace {

TEST(Philox, KnownAnswers) {  // from the Random123 distribution's kat_vectors, philox4x32 10 rounds
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Random, IsAFunctionOfItsAddress) {
  const Random a(7, RandomPurpose::kTest, 3), b(7, RandomPurpose::kTest, 3),
      c(7, RandomPurpose::kTest, 4);
  EXPECT_EQ(a.bits(5), b.bits(5));
  EXPECT_NE(a.bits(5), a.bits(6));
  EXPECT_NE(a.bits(5), c.bits(5));
  double sum = 0, squares = 0;
  for (int i = 0; i < 100000; ++i) {
    const double x = a.normal(i);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / 1e5, 0, 0.02);
  EXPECT_NEAR(squares / 1e5, 1, 0.02);
}

TEST(ThreadPool, RunsEachTaskOnceAndPassesExceptionsOn) {
  ThreadPool pool(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::atomic<int>> done(97);
    pool.parallel_for(97, [&](int64_t i, int) { done[static_cast<size_t>(i)]++; });
    for (auto& d : done) ASSERT_EQ(d.load(), 1);
  }
  EXPECT_THROW(pool.parallel_for(8,
                                 [](int64_t i, int) {
                                   if (i == 5) throw 1;
                                 }),
               int);
  std::atomic<int> after{0};
  pool.parallel_for(10, [&](int64_t, int) { after++; });
  EXPECT_EQ(after.load(), 10);
}

TEST(ThreadPool, EveryThreadFlushesDenormals) {
  EXPECT_FALSE(denormals_are_flushed());  // a test's thread is not Ferry's
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    std::vector<int> flushed(64, -1);
    pool.parallel_for(
        64, [&](int64_t i, int) { flushed[static_cast<size_t>(i)] = denormals_are_flushed(); });
    EXPECT_EQ(flushed, std::vector<int>(64, 1)) << threads;
    EXPECT_FALSE(denormals_are_flushed()) << "the caller gets its own mode back";
  }
  const FlushDenormals flush;
  EXPECT_TRUE(denormals_are_flushed());
}

TEST(ThreadPool, RefusesASecondCallerAndATaskThatCallsIt) {
  for (const int threads : {1, 2, 3})
    for (const int64_t tasks : {1, 7}) {
      ThreadPool pool(threads);
      std::atomic<int> refused{0}, ran{0};
      pool.parallel_for(tasks, [&](int64_t, int) {
        try {
          pool.parallel_for(tasks, [&](int64_t, int) { ran++; });
        } catch (const Bug&) {
          refused++;
        }
      });
      EXPECT_EQ(refused.load(), tasks) << threads;
      EXPECT_EQ(ran.load(), 0) << threads;
      pool.parallel_for(tasks, [&](int64_t, int) {
        std::thread([&] { EXPECT_THROW(pool.parallel_for(1, [](int64_t, int) {}), Bug); }).join();
        ran++;
      });
      EXPECT_EQ(ran.load(), tasks) << threads;
    }
}

TEST(ThreadPool, OneThreadRunsTasksInOrderOnTheCaller) {
  ThreadPool pool(1);
  std::vector<int64_t> order;
  const auto caller = std::this_thread::get_id();
  pool.parallel_for(5, [&](int64_t i, int thread) {
    EXPECT_EQ(thread, 0);
    EXPECT_EQ(std::this_thread::get_id(), caller);
    order.push_back(i);
  });
  EXPECT_EQ(order, (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_THROW(pool.parallel_for(3,
                                 [&](int64_t i, int) {
                                   order.push_back(i);
                                   if (i == 1) throw 1;
                                 }),
               int);
  EXPECT_EQ(order.size(), 7u);  // none after the exception
  pool.parallel_for(2, [&](int64_t i, int) { order.push_back(i); });
  EXPECT_EQ(order.size(), 9u);
}

TEST(File, AtomicWriteLeavesOldContentWhenAnyStepFails) {
  const std::string folder = ::testing::TempDir() + "ferry_file_test";
  ASSERT_TRUE(make_folders(folder));
  const std::string path = join_path(folder, "a.txt");
  ASSERT_TRUE(write_file_atomic(path, "old"));
  for (const char* point : {"file.create", "file.write", "file.sync", "file.rename"}) {
    arm_faults(fmt::format("{}:1:enospc", point));
    const Result<void> r = write_file_atomic(path, "new");
    arm_faults("");
    ASSERT_FALSE(r) << point;
    EXPECT_EQ(r.error().code, Code::kExhausted);
    EXPECT_EQ(*read_file(path), "old") << point;
    EXPECT_EQ(list_folder(folder)->size(), 1u) << point;
  }
  ASSERT_TRUE(remove_tree(folder));
}

TEST(File, WhatIsForbiddenIsToldFromWhatFailed) {
  const std::string path = ::testing::TempDir() + "ferry_forbidden";
  for (const auto& [action, code] : {std::pair("eacces", Code::kExhausted),
                                     std::pair("erofs", Code::kExhausted),
                                     std::pair("eio", Code::kUnavailable),
                                     std::pair("efbig", Code::kExhausted),
                                     std::pair("enospc", Code::kExhausted)}) {
    arm_faults(fmt::format("file.write:*:{}", action));
    for (int i = 0; i < 2; ++i) {  // each time
      const Result<void> written = write_file_atomic(path, "x");
      ASSERT_FALSE(written);
      EXPECT_EQ(written.error().code, code) << written.error().message;
    }
    arm_faults("");
  }
  EXPECT_FALSE(path_exists(path));
}

TEST(File, ARecordIsWrittenWholeOrNotAtAll) {
  const std::string path = ::testing::TempDir() + "ferry_record";
  ASSERT_TRUE(remove_tree(path));
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100, 100};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    Result<FileWriter> out = FileWriter::append(path);
    const bool first = out && out->write(std::string(60, 'a'));
    const Result<void> second = out->write(std::string(60, 'b'));
    ::_exit(first && !second && second.error().code == Code::kExhausted ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(*read_file(path), std::string(60, 'a'));
  ASSERT_TRUE(remove_tree(path));
}

TEST(Alive, LongWorkIsHeardAndOnlyWhileSomebodyListens) {
  const std::string path = ::testing::TempDir() + "ferry_alive", text(40 << 20, 'x');
  uint64_t bytes = 0;
  int calls = 0;
  {
    const AliveListener listener([&](uint64_t n) {
      bytes += n;
      ++calls;
    });
    ASSERT_TRUE(write_file_atomic(path, text));
    EXPECT_EQ(bytes, text.size());
    EXPECT_GE(calls, 3 + 2);  // blocks of 16 MiB, the syncs
    blake2b_hex(text.data(), text.size());
    EXPECT_EQ(bytes, 2 * text.size());
    EXPECT_GE(calls, 5 + 10);  // blocks of 4 MiB
  }
  blake2b_hex(text.data(), text.size());
  EXPECT_EQ(bytes, 2 * text.size());
  ASSERT_TRUE(remove_tree(path));
}

TEST(File, WhatIsNoFileIsNotWaitedFor) {
  const std::string folder = ::testing::TempDir() + "ferry_pipes", pipe = join_path(folder, "pipe");
  ASSERT_TRUE(remove_tree(folder));
  ASSERT_TRUE(make_folders(folder));
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const auto refused = [&](const std::string& path, const std::string& what) {
    const Status said[] = {read_file(path).error(),
                           MappedFile::open(path).error(),
                           FileReader::open(path).error(),
                           LineReader::open(path).error()};
    for (const Status& s : said) {
      EXPECT_EQ(s.code, Code::kInvalidInput) << s.message;
      EXPECT_EQ(s.message, path + ": " + what + "; name a regular file");
    }
  };
  refused(pipe, "is a pipe");
  refused("/dev/zero", "is a device");
  refused(folder, "is a folder");
  EXPECT_TRUE(FileHold::shared(pipe));  // nor here

  const auto rereadable = [&](const std::string& path) {
    const auto r = check_rereadable(path, "text is read twice");
    return r ? "" : r.error().message;
  };
  for (const std::string& path : {pipe, std::string("/dev/zero")})
    EXPECT_EQ(rereadable(path),
              path + ": is not a regular file, and text is read twice; write it to a file first");
  for (const std::string& path : {folder, pipe + "/none", folder + "/none", std::string()})
    EXPECT_EQ(rereadable(path), "");

  // What a person names may be a pipe; what is in it is read to its end, and no further than asked.
  std::thread writer([&] {
    std::FILE* out = std::fopen(pipe.c_str(), "w");
    std::fputs("through a pipe", out);
    std::fclose(out);
  });
  EXPECT_EQ(read_input(pipe, 100).value_or("none"), "through a pipe");
  writer.join();
  const auto zeros = read_input("/dev/zero", 1 << 20);
  ASSERT_FALSE(zeros);
  EXPECT_EQ(zeros.error().code, Code::kInvalidInput);
  ASSERT_FALSE(read_input(folder, 100));
  EXPECT_EQ(read_input(folder, 100).error().message, folder + ": is a folder; name a file");
  EXPECT_EQ(read_input(join_path(folder, "none"), 100).error().code, Code::kNotFound);
  ASSERT_TRUE(remove_tree(folder));
}

/// Sockets have an error that a device without its driver has, too.
TEST(File, ASocketIsToldByWhatItIs) {
  const std::string path = ::testing::TempDir() + "ferry_socket";
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  ASSERT_LT(path.size(), sizeof address.sun_path);
  std::copy(path.begin(), path.end(), address.sun_path);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(read_file(path).error().message, path + ": is a socket; name a file");
  EXPECT_EQ(read_input(path, 1).error().message, path + ": is a socket; name a file");
  ::close(fd);
  ASSERT_TRUE(remove_tree(path));
  for (const auto& [given, words] : {std::pair{"absent/a.txt", ": No such file or directory"},
                                     {"hf://datasets/a", "Ferry fetches nothing"},
                                     {"https://a.org/b.txt?c", "Ferry fetches nothing"},
                                     {"absent/*.txt", "patterns"}}) {
    const auto file = FileReader::open(given);
    ASSERT_FALSE(file);
    EXPECT_EQ(file.error().code, Code::kNotFound);
    EXPECT_NE(file.error().message.find(words), std::string::npos) << file.error().message;
  }
  const Result<void> device = open_error("/dev/null", ENXIO);
  EXPECT_EQ(device.error().message, "/dev/null: cannot open: No such device or address");
}

TEST(File, ALimitOfOpenFilesIsNotMetTwice) {
  arm_faults("file.open:1:emfile");
  const auto r = read_file("/proc/self/stat");
  arm_faults("");
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::kExhausted);
  EXPECT_NE(r.error().message.find("ulimit -n"), std::string::npos) << r.error().message;
}

TEST(File, OnlyWhatIsNotThereIsAbsent) {
  const std::string folder = ::testing::TempDir() + "ferry_there", path = join_path(folder, "a");
  ASSERT_TRUE(make_folders(folder));
  ASSERT_TRUE(write_file_atomic(path, "x"));
  EXPECT_TRUE(*is_there(path));
  EXPECT_FALSE(*is_there(join_path(folder, "b")));
  EXPECT_FALSE(*is_there(join_path(path, "below a file")));
  for (const auto& [action, code] :
       {std::pair("eio", Code::kUnavailable), std::pair("eacces", Code::kExhausted)}) {
    const auto refused = [&, action = action, code = code](const char* point, const auto& read) {
      arm_faults(fmt::format("{}:1:{}", point, action));
      const auto r = read();
      arm_faults("");
      ASSERT_FALSE(r) << point;
      EXPECT_EQ(r.error().code, code) << point;
      EXPECT_NE(r.error().message.find(folder), std::string::npos) << r.error().message;
    };
    refused("file.stat", [&] { return is_there(path); });
    refused("file.open", [&] { return read_file(path); });
    refused("file.read_whole", [&] { return read_file(path); });
    refused("file.open", [&] { return MappedFile::open(path); });
    refused("file.open", [&] { return FileReader::open(path); });
    refused("file.open", [&] { return LineReader::open(path); });
    refused("file.list", [&] { return list_folder(folder); });
    refused("file.size", [&] { return file_size(path); });
    refused("file.free_space", [&] { return free_disk_bytes(folder); });
    refused("file.make_folders", [&] { return make_folders(join_path(folder, "c")); });
    refused("file.create", [&] { return write_private_file(join_path(folder, "d"), "x"); });
    refused("file.create_lock", [&] { return FolderLock::acquire(folder); });
  }
  ASSERT_TRUE(remove_tree(folder));
}

TEST(File, LinesComeAsTheyWereWritten) {
  const std::string path = ::testing::TempDir() + "ferry_lines";
  const std::string wide(200'000, 'x');  // more than a block
  for (const std::string& text : {std::string(),
                                  std::string("\n"),
                                  std::string("a\n\nb\r\n"),
                                  "a\n" + wide + "\nlast",
                                  wide + "\n" + wide + "\n"}) {
    ASSERT_TRUE(write_file_atomic(path, text));
    auto lines = LineReader::open(path);
    ASSERT_TRUE(lines) << lines.error().message;
    std::string together;
    while (true) {
      const auto line = lines->next();
      ASSERT_TRUE(line) << line.error().message;
      if (line->empty()) break;
      EXPECT_EQ(line->find('\n'), line->back() == '\n' ? line->size() - 1 : line->npos);
      together += *line;
    }
    EXPECT_EQ(together, text);
    EXPECT_TRUE(lines->next()->empty());
  }
  EXPECT_FALSE(LineReader::open(::testing::TempDir()));
  ASSERT_TRUE(remove_tree(path));
}

TEST(File, WhatIsWrittenByAFunctionAppearsWholeOrNotAtAll) {
  const std::string folder = ::testing::TempDir() + "ferry_atomic", path = join_path(folder, "a");
  ASSERT_TRUE(make_folders(folder));
  ASSERT_TRUE(write_file_atomic(path, "before"));
  const auto failed = write_file_atomic(path, [](FileWriter& out) -> Result<void> {
    TRY(out.write("half"));
    return fail(Code::kCorrupt, "no more");
  });
  EXPECT_FALSE(failed);
  EXPECT_EQ(*read_file(path), "before");
  EXPECT_EQ(list_folder(folder)->size(), 1u);
  ASSERT_TRUE(write_file_atomic(path, [](FileWriter& out) -> Result<void> {
    TRY(out.write("af"));
    return out.write("ter");
  }));
  EXPECT_EQ(*read_file(path), "after");
  ASSERT_TRUE(remove_tree(folder));
}

/// What a disk or another process takes away while it is mapped has a name; a signal that is sent has none.
TEST(File, AMappedFileThatIsCutShortIsToldByName) {
  const std::string path = fmt::format("{}ferry_mapped_{}", ::testing::TempDir(), ::getpid());
  ASSERT_TRUE(write_file_atomic(path, std::string(3 << 16, 'x')));
  const auto file = MappedFile::open(path);
  ASSERT_TRUE(file);
  { const auto other = MappedFile::open(path); }  // what was let go of is nobody's
  const volatile std::byte& last = file->bytes().back();
  EXPECT_EXIT(
      {
        tell_of_mapped_faults();
        std::filesystem::resize_file(path, 100);
        ::_exit(last == std::byte{'x'} ? 1 : 0);
      },
      ::testing::KilledBySignal(SIGBUS),
      path + ": cannot be read: it was cut short");
  EXPECT_EXIT(
      {
        tell_of_mapped_faults();
        ::raise(SIGBUS);
        ::_exit(1);
      },
      ::testing::KilledBySignal(SIGBUS),
      "");  // an emulator says something of its own
  std::filesystem::remove(path);
}

TEST(File, TemporaryNamesEndInAProcessAndANumber) {
  EXPECT_TRUE(is_process_and_serial("12.0"));
  for (const char* mine : {"", ".", "12", "12.", ".1", "12.a", "backup", "1.2.3", "1.2 ", "-1.2"})
    EXPECT_FALSE(is_process_and_serial(mine)) << mine;
}

TEST(File, AFileSystemThatCannotLockIsUsedAndTold) {
  const std::string folder = ::testing::TempDir() + "ferry_no_lock";
  arm_faults("file.lock:1:enosys");
  const auto lock = FolderLock::acquire(folder);
  arm_faults("file.lock:1:eio");
  const auto failing = FolderLock::acquire(folder);
  arm_faults("");
  ASSERT_TRUE(lock) << lock.error().message;
  EXPECT_FALSE(lock->exclusive());
  EXPECT_FALSE(failing);
  EXPECT_TRUE(FolderLock::acquire(folder)->exclusive());
  ASSERT_TRUE(remove_tree(folder));
}

TEST(PatientOutput, NeverWaitsForItsReader) {
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  std::FILE* out = ::fdopen(pipe[1], "w");
  const std::string line(99, 'x');
  std::string read;
  {
    PatientOutput output(out);
    EXPECT_TRUE(output.write("first\n"));
    ASSERT_TRUE(output.flush(60));
    EXPECT_TRUE(output.write_passing("passing\n"));
    ASSERT_TRUE(output.flush(60));
    int taken = 0;
    for (int i = 0; i < 4000; ++i)
      taken += output.write(line + "\n");  // far more than a pipe holds
    EXPECT_LT(taken, 4000);
    EXPECT_FALSE(output.write_passing("passing again\n"));
    EXPECT_FALSE(output.flush(0));
    std::thread reader([&] {
      char block[4096];
      for (ssize_t n; (n = ::read(pipe[0], block, sizeof block)) > 0;)
        read.append(block, static_cast<size_t>(n));
    });
    EXPECT_TRUE(output.flush(60));
    EXPECT_TRUE(output.write("last\n"));
    EXPECT_TRUE(output.flush(60));
    std::fclose(out);
    reader.join();
    // Told in one piece or in several: the writer may have come in between.
    int64_t left_out = 0;
    const std::string_view told = " left out here)\n";
    for (size_t at = 0; (at = read.find(told, at)) != read.npos; at += told.size()) {
      const size_t begin = read.rfind('(', at) + 1;
      left_out += std::stoll(read.substr(begin, at - begin));
    }
    EXPECT_EQ(left_out, 4000 - taken);
  }
  ::close(pipe[0]);
  EXPECT_TRUE(read.starts_with("first\npassing\n" + line));
  EXPECT_TRUE(read.ends_with("last\n"));
  EXPECT_EQ(read.find("again"), read.npos);
}

TEST(File, FolderLockNamesItsHolder) {
  const std::string folder = ::testing::TempDir() + "ferry_lock_test";
  auto first = FolderLock::acquire(folder);
  ASSERT_TRUE(first);
  auto second = FolderLock::acquire(folder);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("process"), std::string::npos);
  ASSERT_TRUE(remove_tree(folder));
}

TEST(File, FolderLockTakesBackAnEmptyFolderThatItMade) {
  const std::string top = ::testing::TempDir() + "ferry_lock_made", folder = top + "/a/b";
  ASSERT_TRUE(remove_tree(top));
  ASSERT_TRUE(make_folders(top));
  ASSERT_TRUE(FolderLock::acquire(folder));
  EXPECT_TRUE(path_exists(top));  // was there before
  EXPECT_FALSE(path_exists(top + "/a"));
  {
    auto lock = FolderLock::acquire(folder);
    ASSERT_TRUE(lock);
    EXPECT_FALSE(FolderLock::acquire(folder));  // the loser takes nothing away
    ASSERT_TRUE(write_file_atomic(folder + "/kept", "x"));
  }
  EXPECT_TRUE(path_exists(folder + "/kept"));
  ASSERT_TRUE(remove_tree(folder + "/kept"));
  ASSERT_TRUE(FolderLock::acquire(folder));
  EXPECT_TRUE(path_exists(folder));  // empty, but another lock's making
  ASSERT_TRUE(remove_tree(top));
}

TEST(File, AFolderLockTakesBackNoOthersFolder) {
  const std::string top = ::testing::TempDir() + "ferry_lock_moved", folder = top + "/a";
  ASSERT_TRUE(remove_tree(top));
  std::optional<FolderLock> lock = *FolderLock::acquire(folder);
  ASSERT_TRUE(remove_tree(folder));
  const auto other = FolderLock::acquire(folder);
  ASSERT_TRUE(other);
  lock.reset();
  EXPECT_TRUE(path_exists(folder + "/.lock"));
  ASSERT_TRUE(remove_tree(top));
}

/// Whoever moves a folder takes its files along.
TEST(File, APathNamesAFileUntilItIsMovedOrReplaced) {
  const std::string top = ::testing::TempDir() + "ferry_named", folder = top + "/a";
  const std::string path = folder + "/log";
  ASSERT_TRUE(remove_tree(top));
  ASSERT_TRUE(make_folders(folder));
  EXPECT_EQ(NamedFile::at(path).error().code, Code::kNotFound);
  auto log = FileWriter::append(path);
  const auto named = NamedFile::at(path);
  ASSERT_TRUE(named);
  ASSERT_TRUE(log->write("x"));
  EXPECT_TRUE(*named->in_place());
  arm_faults("file.stat:1:eio");
  EXPECT_FALSE(named->in_place());
  arm_faults("");
  ASSERT_TRUE(rename_path(folder, top + "/b"));
  EXPECT_FALSE(*named->in_place());
  ASSERT_TRUE(make_folders(folder));
  ASSERT_TRUE(write_file_atomic(path, "x"));
  EXPECT_FALSE(*named->in_place());
  EXPECT_TRUE(*NamedFile::at(path)->in_place());
  ASSERT_TRUE(remove_tree(top));
}

TEST(Units, ReadLikeWords) {
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_count(12.3e6), "12.3 M");
  EXPECT_EQ(format_duration(245), "4 min 05 s");
  EXPECT_EQ(format_utc(0), "1970-01-01 00:00 UTC");
  EXPECT_EQ(format_utc(1709251199999), "2024-02-29 23:59 UTC");
}

TEST(Markup, IsTextAndNothingElse) {
  EXPECT_EQ(escape_markup("<a href=\"x\"> & \x1b\x01\n"), "&lt;a href=&quot;x&quot;&gt; &amp; \n");
}

TEST(Hash, Blake2bOfTheEmptyString) {
  EXPECT_EQ(blake2b_hex("", 0), "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
}

/// Whoever waits for standard input ends by the first Ctrl-C. (Where the read begins again behind the handler, or
/// does not look before it waits, an alarm ends the child after 20 s, and the test fails.)
TEST(InputFile, AReadThatWaitsHearsThatItIsToStop) {
  const std::string fifo = fmt::format("{}ferry_waits.{}", ::testing::TempDir(), ::getpid());
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  for (const bool before : {false, true}) {
    const pid_t child = ::fork();  // what it has heard it cannot unhear
    if (child == 0) {
      ::alarm(20);
      const int writer = ::open(fifo.c_str(), O_RDWR | O_CLOEXEC);
      stop_files_by_signals();
      Result<InputFile> in = InputFile::open(fifo);
      char bytes[8];
      if (writer < 0 || !in || ::write(writer, "abc", 3) != 3 || in->read(bytes, sizeof bytes) != 3)
        ::_exit(1);
      const pid_t reader = ::getpid(), other = before ? 0 : ::fork();
      if (before) ::raise(SIGTERM);
      if (!before && other == 0) {
        ::usleep(300'000);
        ::kill(reader, SIGTERM);
        ::_exit(0);
      }
      const Result<size_t> stopped = in->read(bytes, sizeof bytes);
      if (!before) ::waitpid(other, nullptr, 0);
      const bool right = !stopped && stopped.error().code == Code::kUnavailable &&
                         stopped.error().message.starts_with("stopped by SIGTERM");
      ::_exit(right ? 0 : 2);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  ::unlink(fifo.c_str());
}

/// Who waits for the other end of a named pipe ends by the first Ctrl-C, too, and one that comes late is waited for.
/// (Where opening it waits, the alarm ends the child; where a pipe that nobody has written to yet is taken for one at
/// its end, the bytes are missing.)
TEST(InputFile, APipeThatNobodyWritesToYetIsWaitedForUntilItIsToStop) {
  const std::string fifo = fmt::format("{}ferry_late.{}", ::testing::TempDir(), ::getpid());
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  for (const bool comes : {false, true}) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);
      stop_files_by_signals();
      const pid_t reader = ::getpid(), other = ::fork();
      if (other == 0) {
        ::alarm(20);  // whose reader has gone, waits
        ::usleep(300'000);
        if (!comes) ::kill(reader, SIGTERM);
        const int writer = comes ? ::open(fifo.c_str(), O_WRONLY) : 0;
        ::_exit(!comes || ::write(writer, "abc", 3) == 3 ? 0 : 1);
      }
      const Result<std::string> all = read_input(fifo, 100);
      ::waitpid(other, nullptr, 0);
      const bool right = comes ? all && *all == "abc"
                               : !all && all.error().code == Code::kUnavailable &&
                                     all.error().message.starts_with("stopped by SIGTERM");
      ::_exit(right ? 0 : 2);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << (comes ? "the writer comes" : "nobody comes");
  }
  ::unlink(fifo.c_str());
}

}  // namespace
}  // namespace ferry
