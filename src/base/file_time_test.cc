// When a file was written: what the system says, or why it cannot be told.
#include "base/file_time.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/file.h"

namespace ferry {
namespace {

TEST(FileTime, IsInMilliseconds) {
  const std::string path = testing::TempDir() + "/written";
  ASSERT_TRUE(write_file_atomic(path, "x"));
  const timespec times[2] = {{1, 0}, {1'772'000'000, 345'999'999}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  const Result<int64_t> written = written_unix_ms(path);
  ASSERT_TRUE(written) << written.error().message;
  EXPECT_EQ(*written, 1'772'000'000'345);
}

TEST(FileTime, OnlyWhatIsNotThereIsNotFound) {
  const std::string path = testing::TempDir() + "/none";
  const Result<int64_t> none = written_unix_ms(path);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::kNotFound);
  EXPECT_NE(none.error().message.find(path), std::string::npos) << none.error().message;
  arm_faults("file.stat:1:eio");
  const Result<int64_t> failed = written_unix_ms(testing::TempDir());
  arm_faults("");
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace ferry
