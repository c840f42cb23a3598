#include "base/input_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "base/flight_record.h"
#include "base/os_error.h"
#include "base/stopping.h"

namespace ferry {

Result<InputFile> InputFile::open(const std::string& path) {
  static std::atomic<bool> taken = false;
  if (path == kStandardInput) {
    if (taken.exchange(true))
      return fail(Code::kInvalidInput,
                  "standard input (-) is asked for twice, and gives its bytes but once; write it "
                  "to a file first");
    return standard_input();
  }
  const flight::In call("open", path);
  InputFile file;
  file.path_ = path;
  struct stat st {};
  // Opening a pipe would wait for who writes, and begin again behind the handler of a signal; that read() does not.
  const bool pipe = ::stat(path.c_str(), &st) == 0 && S_ISFIFO(st.st_mode);
  const int error = error_of("file.open", [&] {
    file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | (pipe ? O_NONBLOCK : 0));
    return file.fd_ >= 0;
  });
  if (error != 0) return open_error(path, error);
  // poll() says that a pipe has ended only when one who wrote has left: until one comes, wait_for_bytes() waits. Then
  // it is read as if it had been opened with him there.
  if (pipe && ::fcntl(file.fd_, F_SETFL, 0) != 0) return os_error("open", path, errno);
  if (::fstat(file.fd_, &st) != 0) return os_error("open", path, errno);
  if (S_ISDIR(st.st_mode))
    return fail(Code::kInvalidInput, "{}: {}; name a file", path, kind_of_file(st.st_mode));
  return file;
}

InputFile InputFile::standard_input() {
  InputFile file;
  file.path_ = "standard input";
  file.fd_ = STDIN_FILENO;
  return file;
}

bool InputFile::standard_input_has_text() {
  struct stat st {};
  if (::fstat(STDIN_FILENO, &st) != 0) return false;
  if (S_ISREG(st.st_mode)) return ::lseek(STDIN_FILENO, 0, SEEK_CUR) < st.st_size;
  pollfd in = {STDIN_FILENO, POLLIN, 0};
  int bytes = 0;
  return S_ISFIFO(st.st_mode) && ::poll(&in, 1, 0) == 1 &&
         ::ioctl(STDIN_FILENO, FIONREAD, &bytes) == 0 && bytes > 0;
}

InputFile::InputFile(InputFile&& o) noexcept
    : path_(std::move(o.path_)), fd_(std::exchange(o.fd_, -1)) {}

InputFile& InputFile::operator=(InputFile&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(fd_, o.fd_);
  return *this;
}

InputFile::~InputFile() {
  if (fd_ > STDERR_FILENO) ::close(fd_);
}

/// Until there is something to read, or the end. (A read that waits would begin again behind the handler of a signal;
/// looking now and then also finds one that came just before.)
Result<void> InputFile::wait_for_bytes() const {
  constexpr int kLookMs = 200;
  for (;;) {
    TRY(files_not_stopped());
    pollfd in = {fd_, POLLIN, 0};
    const int ready = ::poll(&in, 1, kLookMs);
    if (ready > 0 || (ready < 0 && errno != EINTR))
      return {};  // what is wrong with it read() finds
  }
}

Result<size_t> InputFile::read(void* out, size_t size) {
  const flight::In call("read", path_);
  TRY(wait_for_bytes());
  ssize_t n = 0;
  const int error = error_of("file.read", [&] {
    do {
      n = ::read(fd_, out, std::min<size_t>(size, size_t{1} << 30));
    } while (n < 0 && errno == EINTR);
    return n >= 0;
  });
  if (error != 0) return os_error("read", path_, error);
  return static_cast<size_t>(n);
}

Result<void> check_rereadable(const std::string& path, std::string_view again) {
  const flight::In call("look for", path);
  struct stat st {};
  const bool standard = path == kStandardInput;
  const int error = error_of("file.stat", [&] {
    return (standard ? ::fstat(STDIN_FILENO, &st) : ::stat(path.c_str(), &st)) == 0;
  });
  if (error == ENOENT || error == ENOTDIR) return {};
  if (error != 0) return os_error("look for", path, error);
  if (!standard && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) return {};
  return fail(
      Code::kInvalidInput,
      "{}, and {}; write it to a file first",
      standard ? "standard input gives its bytes but once" : path + ": is not a regular file",
      again);
}

Result<std::string> read_input(const std::string& path, uint64_t bytes_max) {
  constexpr size_t kBlock = size_t{1} << 16;
  TRY_ASSIGN(InputFile file, InputFile::open(path));
  std::string content;
  for (;;) {
    const size_t before = content.size();
    content.resize(before + kBlock);
    TRY_ASSIGN(const size_t n, file.read(content.data() + before, kBlock));
    content.resize(before + n);
    if (n == 0) return content;
    if (content.size() > bytes_max)
      return fail(Code::kInvalidInput,
                  "{}: more than the {} bytes expected of such a file",
                  path,
                  bytes_max);
  }
}

}  // namespace ferry
