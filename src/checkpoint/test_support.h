// What this folder's tests share: temporary folders, test tensors, and saves that are killed.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/fault.h"
#include "base/file.h"
#include "base/random.h"
#include "checkpoint/model_dir.h"

namespace ferry {

/// In memory where there is such a file system: these tests sync thousands of files, which on a
/// busy disk takes minutes and shows nothing more. Removed at the end of the process (children use
/// _exit).
inline const std::string& test_root() {
  struct Root {
    std::string path =
        fmt::format("{}/ferry_checkpoint_test.{}",
                    ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ::testing::TempDir(),
                    ::getpid());
    ~Root() { EXPECT_TRUE(remove_tree(path)); }
  };
  static const Root root;
  return root.path;
}

inline std::string fresh_folder(const std::string& name) {
  std::string path = join_path(test_root(), name);
  EXPECT_TRUE(remove_tree(path));
  EXPECT_TRUE(make_folders(path));
  return path;
}

inline Device& cpu() { return **open_device("cpu"); }

inline Tensor random_tensor(const Shape& shape, uint64_t seed) {
  const Random random(seed, RandomPurpose::kTest, 0);
  std::vector<float> values(static_cast<size_t>(shape.count()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
  return Tensor::from_f32(values, shape, cpu());
}

inline std::vector<std::byte> bytes_of(const Tensor& t) {
  std::vector<std::byte> bytes(t.bytes());
  if (!bytes.empty()) t.copy_bytes_to(bytes.data());
  return bytes;
}

inline void flip_bit(const std::string& path, size_t byte) {
  std::string content = *read_file(path);
  ASSERT_LT(byte, content.size());
  content[byte] = static_cast<char>(content[byte] ^ 0x10);
  ASSERT_TRUE(write_file_atomic(path, content));
}

/// A failure of this code whose message has all the words.
template <typename T>
::testing::AssertionResult fails(const Result<T>& result,
                                 Code code,
                                 const std::vector<std::string>& words) {
  if (result) return ::testing::AssertionFailure() << "succeeded";
  if (result.error().code != code)
    return ::testing::AssertionFailure() << "another code: " << result.error().message;
  for (const std::string& word : words)
    if (result.error().message.find(word) == std::string::npos)
      return ::testing::AssertionFailure() << "no '" << word << "' in: " << result.error().message;
  return ::testing::AssertionSuccess();
}

/// Every step of a save that can fail or be the last one of a process.
inline constexpr const char* kSteps[] = {"file.mkdir",
                                         "file.create",
                                         "file.write",
                                         "file.sync",
                                         "file.sync_folder",
                                         "file.exchange",
                                         "file.rename",
                                         "file.remove"};

/// Runs `save` in a child with the faults armed. True if it ended by itself, false if it was
/// killed.
template <typename Save>
bool survives(const std::string& faults, Save&& save) {
  const pid_t child = ::fork();
  if (child == 0) {
    arm_faults(faults);
    save();
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
              (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
      << faults << ": status " << status;
  return WIFEXITED(status);
}

/// Hidden siblings of dead writers, still there.
inline std::vector<std::string> leftovers(const std::string& folder) {
  std::vector<std::string> found;
  const std::vector<std::string> names = *list_folder(folder);
  for (const std::string& name : names)
    if (leftover_of(name)) found.push_back(name);
  return found;
}

}  // namespace ferry
