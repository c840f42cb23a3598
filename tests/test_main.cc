// The main() of every test program: gives the process a temporary folder of its own, so that tests
// that run beside each other (ctest runs each as a process) never share one, and removes it.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

/// A program that has tests to add when it knows what is asked for (--gtest_filter) defines this.
[[gnu::weak]] void register_tests();

namespace {

namespace fs = std::filesystem;

/// Sets what testing::TempDir() and std::filesystem::temp_directory_path() read. Processes that a
/// test starts inherit it.
fs::path own_temporary_folder() {
  std::string name = (fs::temp_directory_path() / "ferry-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    std::perror(name.c_str());
    std::exit(3);
  }
  ::setenv("TEST_TMPDIR", name.c_str(), 1);
  ::setenv("TMPDIR", name.c_str(), 1);
  return name;
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (register_tests != nullptr) register_tests();
  if (::testing::GTEST_FLAG(list_tests)) return RUN_ALL_TESTS();
  const fs::path folder = own_temporary_folder();
  const int status = RUN_ALL_TESTS();
  std::error_code unimportant;  // a folder that a test made unreadable stays behind
  fs::remove_all(folder, unimportant);
  return status;
}
