// A folder for what a fuzzer has to lay on disk, because the reader opens files itself.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/file.h"

namespace ferry {

/// Lies in memory where the system has such a place; removed when the process ends in order.
class FuzzFolder {
 public:
  FuzzFolder() {
    const bool shared_memory = std::filesystem::is_directory("/dev/shm");
    path_ =
        fmt::format("{}/ferry_fuzz_{}",
                    shared_memory ? "/dev/shm" : std::filesystem::temp_directory_path().string(),
                    ::getpid());
    check(make_folders(path_).has_value(), "fuzz: cannot make {}", path_);
  }
  ~FuzzFolder() { std::filesystem::remove_all(path_); }
  FuzzFolder(const FuzzFolder&) = delete;
  FuzzFolder& operator=(const FuzzFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return join_path(path_, name); }

  /// Not write_file_atomic: that syncs, and a fuzzer writes a thousand files a second.
  void write(std::string_view name, std::string_view content) const {
    Result<FileWriter> file = FileWriter::create(*this / name);
    check(file.has_value() && file->write(content).has_value() && file->close().has_value(),
          "fuzz: cannot write {}",
          name);
  }

 private:
  std::string path_;
};

}  // namespace ferry
