#include "base/named_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/flight_record.h"
#include "base/input_file.h"
#include "base/os_error.h"

namespace ferry {

Result<NamedFile> NamedFile::at(std::string path) {
  const flight::In call("find", path);
  struct stat st {};
  const int error = error_of("file.stat", [&] { return ::stat(path.c_str(), &st) == 0; });
  if (error != 0) return os_error("find", path, error);
  NamedFile file;
  file.path_ = std::move(path);
  file.device_ = st.st_dev;
  file.inode_ = st.st_ino;
  return file;
}

Result<NamedFile> NamedFile::of_input(const std::string& path) {
  if (path != kStandardInput) return at(path);
  struct stat st {};
  if (::fstat(STDIN_FILENO, &st) != 0) return os_error("find", "standard input", errno);
  NamedFile file;
  file.path_ = path;
  file.device_ = st.st_dev;
  file.inode_ = st.st_ino;
  return file;
}

Result<bool> NamedFile::in_place() const {
  const Result<NamedFile> now = at(path_);
  if (!now && now.error().code == Code::kNotFound) return false;
  TRY(now);
  return is(*now);
}

Result<std::string> behind_links(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::weakly_canonical(path, error);
  if (error) return os_error("look for", path, error.value());
  return real.string();
}

}  // namespace ferry
