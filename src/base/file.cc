#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "base/alive.h"
#include "base/flight_record.h"
#include "base/mapped_faults.h"
#include "base/os_error.h"
#include "base/stopping.h"

namespace ferry {
namespace fs = std::filesystem;
namespace {

// So that a slow disk is heard of between two of them.
constexpr size_t kWriteBytesMax = size_t{16} << 20;

/// A regular file, with its size. Nobody waits here: not for whoever would write to a pipe (what is no
/// file is read with base/input_file.h, where a person may name it).
struct Opened {
  int fd;
  uint64_t size;
};
Result<Opened> open_for_reading(const std::string& path) {
  const flight::In call("open", path);
  int fd = -1;
  const int error = error_of("file.open", [&] {
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    return fd >= 0;
  });
  if (error != 0) return open_error(path, error);
  struct stat st {};
  const int failed = ::fstat(fd, &st) == 0 ? 0 : errno;
  if (failed == 0 && S_ISREG(st.st_mode)) return Opened{fd, static_cast<uint64_t>(st.st_size)};
  ::close(fd);
  if (failed != 0) return os_error("open", path, failed);
  return fail(Code::kInvalidInput, "{}: {}; name a regular file", path, kind_of_file(st.st_mode));
}

}  // namespace

Result<std::string> read_file(const std::string& path, uint64_t bytes_max) {
  TRY_ASSIGN(const Opened file, open_for_reading(path));
  const flight::In call("read", path);
  const int fd = file.fd;
  const uint64_t size = file.size;
  if (size > bytes_max) {
    ::close(fd);
    return fail(Code::kInvalidInput,
                "{}: {} bytes, more than the {} expected of such a file",
                path,
                size,
                bytes_max);
  }
  std::string content;
  content.reserve(static_cast<size_t>(size));
  int error = 0;
  char block[1 << 16];
  while (error == 0) {
    ssize_t n = 0;
    const flight::In next("read", path);
    error = error_of("file.read_whole", [&] {
      do {
        n = ::read(fd, block, sizeof block);
      } while (n < 0 && errno == EINTR);
      return n >= 0;
    });
    if (error != 0 || n == 0) break;
    content.append(block, static_cast<size_t>(n));
    if (content.size() > bytes_max) {
      ::close(fd);
      return fail(Code::kInvalidInput,
                  "{}: more than the {} bytes expected of such a file",
                  path,
                  bytes_max);
    }
  }
  ::close(fd);
  if (error != 0) return os_error("read", path, error);
  return content;
}

Result<void> write_file_atomic(const std::string& path, std::string_view content) {
  return write_file_atomic(path, [&](FileWriter& out) { return out.write(content); });
}

Result<void> write_file_atomic(const std::string& path,
                               const std::function<Result<void>(FileWriter&)>& write) {
  static std::atomic<unsigned> serial{0};
  const std::string temporary = fmt::format("{}.tmp.{}.{}", path, ::getpid(), serial++);
  const auto replace = [&]() -> Result<void> {
    TRY_ASSIGN(FileWriter out, FileWriter::create(temporary));
    TRY(write(out));
    TRY(out.sync());
    TRY(out.close());
    return rename_path(temporary, path);
  };
  Result<void> result = replace();
  if (result) return result;
  const flight::In call("remove", temporary);
  ::unlink(temporary.c_str());
  return result;
}

Result<void> write_private_file(const std::string& path, std::string_view content) {
  const flight::In call("write", path);
  int fd = -1;
  int error = error_of("file.create", [&] {
    fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd >= 0;
  });
  if (error == EEXIST) return fail(Code::kInvalidInput, "{}: exists", path);
  if (error != 0) return os_error("create", path, error);
  for (size_t at = 0; at < content.size() && error == 0;) {
    const ssize_t n = ::write(fd, content.data() + at, content.size() - at);
    if (n >= 0) at += static_cast<size_t>(n);
    if (n < 0 && errno != EINTR) error = errno;
  }
  if (error == 0) error = error_of("file.sync", [&] { return ::fsync(fd) == 0; });
  ::close(fd);
  if (error == 0) return {};
  ::unlink(path.c_str());
  return os_error("write", path, error);
}

Result<MappedFile> MappedFile::open(const std::string& path) {
  TRY_ASSIGN(const Opened opened, open_for_reading(path));
  const flight::In call("map", path);
  MappedFile file;
  file.path_ = path;
  int error = 0;
  if (opened.size > 0) {
    void* p = ::mmap(nullptr, opened.size, PROT_READ, MAP_PRIVATE, opened.fd, 0);
    if (p == MAP_FAILED) {
      error = errno;
    } else {
      file.data_ = static_cast<const std::byte*>(p);
      file.size_ = opened.size;
      note_mapping(file.data_, file.size_, path);
    }
  }
  ::close(opened.fd);
  if (error != 0) return os_error("map", path, error);
  return file;
}

MappedFile::MappedFile(MappedFile&& o) noexcept
    : path_(std::move(o.path_)),
      data_(std::exchange(o.data_, nullptr)),
      size_(std::exchange(o.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(data_, o.data_);
  std::swap(size_, o.size_);
  return *this;
}

void MappedFile::release() const {
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  forget_mapping(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

Result<FileReader> FileReader::open(const std::string& path) {
  TRY_ASSIGN(const Opened opened, open_for_reading(path));
  FileReader reader;
  reader.path_ = path;
  reader.fd_ = opened.fd;
  return reader;
}

FileReader::FileReader(FileReader&& o) noexcept
    : path_(std::move(o.path_)), fd_(std::exchange(o.fd_, -1)) {}

FileReader& FileReader::operator=(FileReader&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(fd_, o.fd_);
  return *this;
}

FileReader::~FileReader() {
  if (fd_ < 0) return;
  const flight::In call("close", path_);
  ::close(fd_);
}

Result<size_t> FileReader::read(void* out, size_t size) {
  const flight::In call("read", path_);
  TRY(files_not_stopped());
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

namespace {

Result<int> open_for_writing(const std::string& path, int flags) {
  const flight::In call("open", path);
  int fd = -1;
  const int error = error_of("file.create", [&] {
    fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
    return fd >= 0;
  });
  if (error != 0) return os_error("create", path, error);
  return fd;
}

}  // namespace

Result<LineReader> LineReader::open(const std::string& path) {
  TRY_ASSIGN(FileReader file, FileReader::open(path));
  return LineReader(std::move(file));
}

Result<std::string_view> LineReader::next() {
  constexpr size_t kBlock = size_t{1} << 16;
  size_t end = read_.find('\n', at_);
  while (end == std::string::npos) {
    read_.erase(0, std::exchange(at_, 0));
    const size_t before = read_.size();
    read_.resize(before + kBlock);
    TRY_ASSIGN(const size_t got, file_.read(read_.data() + before, kBlock));
    read_.resize(before + got);
    if (got == 0) break;
    end = read_.find('\n', before);
  }
  const size_t begin = at_;
  at_ = end == std::string::npos ? read_.size() : end + 1;
  return std::string_view(read_).substr(begin, at_ - begin);
}

Result<FileWriter> FileWriter::create(const std::string& path) {
  FileWriter w;
  TRY_ASSIGN(w.fd_, open_for_writing(path, O_TRUNC));
  w.path_ = path;
  return w;
}

Result<FileWriter> FileWriter::append(const std::string& path) {
  FileWriter w;
  TRY_ASSIGN(w.fd_, open_for_writing(path, O_APPEND));
  w.path_ = path;
  return w;
}

FileWriter::FileWriter(FileWriter&& o) noexcept
    : path_(std::move(o.path_)), fd_(std::exchange(o.fd_, -1)), bytes_(o.bytes_) {}

FileWriter& FileWriter::operator=(FileWriter&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(fd_, o.fd_);
  std::swap(bytes_, o.bytes_);
  return *this;
}

FileWriter::~FileWriter() {
  if (fd_ < 0) return;
  const flight::In call("close", path_);
  ::close(fd_);
}

/// A record is in the file whole or not at all: what a limit or a full disk let through is taken
/// back, where the file can be.
Result<void> FileWriter::write(const void* data, size_t size) {
  const flight::In call("write", path_);
  if (const int error = fault_point("file.write")) return os_error("write", path_, error);
  const char* p = static_cast<const char*>(data);
  const auto failed = [&](int error) {
    const off_t written = p - static_cast<const char*>(data), end = ::lseek(fd_, 0, SEEK_CUR);
    if (written > 0 && end >= written && ::ftruncate(fd_, end - written) == 0)
      bytes_ -= static_cast<uint64_t>(written);
    return os_error("write", path_, error);
  };
  while (size > 0) {
    TRY(files_not_stopped());
    const ssize_t n = ::write(fd_, p, std::min(size, kWriteBytesMax));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(errno);
    p += n;
    size -= static_cast<size_t>(n);
    bytes_ += static_cast<uint64_t>(n);
    still_alive(static_cast<uint64_t>(n));
  }
  return {};
}

Result<void> FileWriter::sync() {
  const flight::In call("sync", path_, bytes_);
  const int error = error_of("file.sync", [&] { return ::fsync(fd_) == 0; });
  still_alive();
  if (error != 0) return os_error("sync", path_, error);
  return {};
}

Result<void> FileWriter::close() {
  const flight::In call("close", path_);  // some file systems write only now
  const int fd = std::exchange(fd_, -1);
  if (fd >= 0 && ::close(fd) != 0) return os_error("close", path_, errno);
  return {};
}

Result<void> sync_folder(const std::string& path) {
  const flight::In call("sync", path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return os_error("open the folder", path, errno);
  const int error = error_of("file.sync_folder", [&] { return ::fsync(fd) == 0; });
  ::close(fd);
  still_alive();
  // Some file systems cannot sync a folder (EINVAL); then the rename is as durable as they make it.
  if (error != 0 && error != EINVAL) return os_error("sync the folder", path, error);
  return {};
}

Result<void> rename_path(const std::string& from, const std::string& to) {
  const flight::In call("rename", from);
  const int error =
      error_of("file.rename", [&] { return ::rename(from.c_str(), to.c_str()) == 0; });
  if (error != 0) return os_error(fmt::format("rename to {}", to).c_str(), from, error);
  return sync_folder(parent_folder(to));
}

bool exchange_paths(const std::string& a, const std::string& b) {
  const flight::In call("rename", a);
  return error_of("file.exchange", [&] {
           return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
         }) == 0;
}

Result<bool> create_folder(const std::string& path) {
  const flight::In call("mkdir", path);
  const int error = error_of("file.mkdir", [&] { return ::mkdir(path.c_str(), 0755) == 0; });
  if (error == EEXIST) return false;
  if (error != 0) return os_error("create the folder", path, error);
  return true;
}

Result<void> make_folders(const std::string& path) {
  const flight::In call("mkdir", path);
  if (const int injected = fault_point("file.make_folders"))
    return os_error("create the folder", path, injected);
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return os_error("create the folder", path, error.value());
  return {};
}

Result<void> remove_tree(const std::string& path) {
  const flight::In call("remove", path);
  if (const int injected = fault_point("file.remove")) return os_error("remove", path, injected);
  std::error_code error;
  fs::remove_all(path, error);
  still_alive();
  if (error) return os_error("remove", path, error.value());
  return {};
}

Result<std::vector<std::string>> list_folder(const std::string& path) {
  const flight::In call("list", path);
  if (const int injected = fault_point("file.list")) return os_error("list", path, injected);
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  if (error) return os_error("list", path, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

Result<bool> is_there(const std::string& path) {
  const flight::In call("find", path);
  struct stat st {};
  const int error = error_of("file.stat", [&] { return ::stat(path.c_str(), &st) == 0; });
  if (error == ENOENT || error == ENOTDIR) return false;
  if (error != 0) return os_error("find out whether it is there", path, error);
  return true;
}

bool path_exists(const std::string& path) {
  const flight::In call("find", path);
  std::error_code error;
  return fs::exists(path, error);
}

bool is_folder(const std::string& path) {
  const flight::In call("find", path);
  std::error_code error;
  return fs::is_directory(path, error);
}

std::string link_target(const std::string& path) {
  const flight::In call("find", path);
  std::error_code error;
  const fs::path target = fs::read_symlink(path, error);
  return error ? "" : target.string();
}

Result<uint64_t> file_size(const std::string& path) {
  const flight::In call("size", path);
  if (const int injected = fault_point("file.size"))
    return os_error("find the size", path, injected);
  std::error_code error;
  const uint64_t size = fs::file_size(path, error);
  if (error) return os_error("find the size", path, error.value());
  return size;
}

Result<uint64_t> free_disk_bytes(const std::string& path) {
  const flight::In call("free space", path);
  std::error_code error;
  fs::path folder = fs::absolute(path, error);
  while (!folder.empty() && !fs::exists(folder, error) && folder != folder.parent_path())
    folder = folder.parent_path();
  struct statvfs st {};
  const int failed =
      error_of("file.free_space", [&] { return ::statvfs(folder.c_str(), &st) == 0; });
  if (failed != 0) return os_error("find free space", folder.string(), failed);
  if (fault_point("file.no_room") != 0) return 0;
  return uint64_t{st.f_bavail} * st.f_frsize;
}

std::string parent_folder(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::string join_path(std::string_view folder, std::string_view name) {
  return (fs::path(folder) / fs::path(name)).string();
}

bool is_process_and_serial(std::string_view text) {
  const auto digits = [](std::string_view part) {
    return !part.empty() && part.find_first_not_of("0123456789") == part.npos;
  };
  const size_t dot = text.find('.');
  return dot != text.npos && digits(text.substr(0, dot)) && digits(text.substr(dot + 1));
}

namespace {

/// What flock answers where files cannot be locked at all (Lustre mounted without flock: ENOSYS).
bool cannot_lock(int error) {
  return error == ENOLCK || error == EOPNOTSUPP || error == EINVAL || error == ENOSYS;
}

/// The same of a folder: NFS wants it open for writing (EBADF).
bool cannot_lock_folders(int error) { return error == EBADF || cannot_lock(error); }

int lock_error(int fd, int how) {
  return error_of("file.lock", [&] {
    int status = 0;
    do {
      status = ::flock(fd, how);
    } while (status != 0 && errno == EINTR);
    return status == 0;
  });
}

bool names(const std::string& path, int fd) {
  struct stat held {
  }, named{};
  return ::fstat(fd, &held) == 0 && ::stat(path.c_str(), &named) == 0 &&
         held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

}  // namespace

Result<FolderLock> FolderLock::acquire(const std::string& folder) {
  std::vector<std::string> made;
  for (fs::path p = folder; !p.empty(); p = p.parent_path()) {
    TRY_ASSIGN(const bool there, is_there(p.string()));
    if (there) break;
    made.push_back(p.string());
  }
  TRY(make_folders(folder));
  const std::string path = join_path(folder, ".lock");
  const flight::In call("lock", path);
  FolderLock lock;
  const int opened = error_of("file.create_lock", [&] {
    lock.fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    return lock.fd_ >= 0;
  });
  if (opened != 0) return os_error("create", path, opened);
  const int error = lock_error(lock.fd_, LOCK_EX | LOCK_NB);
  lock.exclusive_ = !cannot_lock(error);
  if (error != 0 && lock.exclusive_) {
    if (error != EWOULDBLOCK) return os_error("lock", path, error);
    char holder[32] = {};
    const ssize_t n = ::pread(lock.fd_, holder, sizeof holder - 1, 0);
    return fail(Code::kInvalidInput,
                "{}: another run uses this folder (process {}); wait for it, stop it, or choose "
                "another folder",
                folder,
                n > 0 ? holder : "unknown");
  }
  if (!names(path, lock.fd_))
    return fail(Code::kUnavailable,
                "{}: another run made this folder and took it away just now; try again",
                folder);
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(lock.fd_, 0) != 0 || ::pwrite(lock.fd_, pid.data(), pid.size(), 0) < 0)
    return os_error("write", path, errno);
  lock.made_ = std::move(made);
  return lock;
}

FolderLock::FolderLock(FolderLock&& o) noexcept
    : fd_(std::exchange(o.fd_, -1)), exclusive_(o.exclusive_), made_(std::move(o.made_)) {}
FolderLock& FolderLock::operator=(FolderLock&& o) noexcept {
  std::swap(fd_, o.fd_);
  std::swap(exclusive_, o.exclusive_);
  std::swap(made_, o.made_);
  return *this;
}
FolderLock::~FolderLock() {
  if (fd_ < 0) return;
  const flight::In call("close", made_.empty() ? "" : made_.front());
  if (!made_.empty()) take_back();
  ::close(fd_);  // the lock goes with the descriptor
}

/// Whoever opened the lock's file meanwhile sees, once he has it, that it has no name any more. What stands in
/// the place of a folder that was moved away is somebody else's.
void FolderLock::take_back() const {
  if (!names(join_path(made_.front(), ".lock"), fd_)) return;
  const Result<std::vector<std::string>> names = list_folder(made_.front());
  if (!names || *names != std::vector<std::string>{".lock"}) return;
  if (::unlink(join_path(made_.front(), ".lock").c_str()) != 0) return;
  for (const std::string& folder : made_)
    if (::rmdir(folder.c_str()) != 0) return;  // somebody has put something there: it stays
}

namespace {

Result<int> open_folder(const std::string& path) {
  const flight::In call("open", path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return os_error("open the folder", path, errno);
  return fd;
}

}  // namespace

namespace {

/// "process 12, ferry train run.toml": those whom the kernel lists as holding the file, but this one.
std::string holders_of(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return "another process";
  std::ifstream locks("/proc/locks");
  std::string names;
  // "1: FLOCK  ADVISORY  READ 1234 08:01:5678 0 EOF". The device of some file systems (overlays) is
  // another there than stat has it: the file's number must do.
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, kind, advisory, mode, pid, file;
    if (!(words >> number >> kind >> advisory >> mode >> pid >> file) || kind != "FLOCK") continue;
    const size_t colon = file.rfind(':');
    if (colon == std::string::npos || file.substr(colon + 1) != std::to_string(st.st_ino)) continue;
    std::ifstream of("/proc/" + pid + "/cmdline");
    std::string command((std::istreambuf_iterator<char>(of)), {});
    while (command.ends_with('\0')) command.pop_back();
    for (char& byte : command)
      if (static_cast<unsigned char>(byte) < 0x20 || byte == 0x7f) byte = ' ';
    if (command.size() > 400) command.replace(400, std::string::npos, "...");
    names += fmt::format(
        "{}process {}{}{}", names.empty() ? "" : "; ", pid, command.empty() ? "" : ", ", command);
  }
  return names.empty() ? "another process" : names;
}

Result<int> held(const std::string& path, int how, Code busy) {
  const flight::In call("lock", path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return os_error("open", path, errno);
  if (::flock(fd, how | LOCK_NB) == 0 || cannot_lock_folders(errno)) return fd;
  const int error = errno;
  const std::string who = error == EWOULDBLOCK ? holders_of(fd) : "";
  ::close(fd);
  if (error != EWOULDBLOCK) return os_error("lock", path, error);
  return fail(busy, "{}: is in use by {}", path, who);
}

}  // namespace

Result<FileHold> FileHold::shared(const std::string& path) {
  FileHold hold;
  TRY_ASSIGN(hold.fd_, held(path, LOCK_SH, Code::kUnavailable));
  return hold;
}
Result<FileHold> FileHold::alone(const std::string& path) {
  FileHold hold;
  TRY_ASSIGN(hold.fd_, held(path, LOCK_EX, Code::kInvalidInput));
  return hold;
}
FileHold::FileHold(FileHold&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
FileHold& FileHold::operator=(FileHold&& o) noexcept {
  std::swap(fd_, o.fd_);
  return *this;
}
FileHold::~FileHold() {
  if (fd_ < 0) return;
  const flight::In call("close", "a held file");
  ::close(fd_);  // the hold goes with the descriptor
}

Result<FolderClaim> FolderClaim::wait(const std::string& folder) {
  FolderClaim claim;
  TRY_ASSIGN(claim.fd_, open_folder(folder));
  const flight::In call("lock", folder);  // which another process may hold for as long as it likes
  if (const int error = lock_error(claim.fd_, LOCK_EX); error != 0) {
    if (!cannot_lock_folders(error)) return os_error("lock the folder", folder, error);
    claim.exclusive_ = false;
  }
  return claim;
}

Result<std::optional<FolderClaim>> FolderClaim::try_now(const std::string& folder) {
  FolderClaim claim;
  TRY_ASSIGN(claim.fd_, open_folder(folder));
  const flight::In call("lock", folder);
  if (const int error = lock_error(claim.fd_, LOCK_EX | LOCK_NB); error != 0) {
    if (error == EWOULDBLOCK) return std::nullopt;
    if (!cannot_lock_folders(error)) return os_error("lock the folder", folder, error);
    claim.exclusive_ = false;
  }
  struct stat held {
  }, named{};
  if (::fstat(claim.fd_, &held) != 0 || ::stat(folder.c_str(), &named) != 0 ||
      held.st_ino != named.st_ino || held.st_dev != named.st_dev)
    return std::nullopt;
  return std::optional<FolderClaim>(std::move(claim));
}

FolderClaim::FolderClaim(FolderClaim&& o) noexcept
    : fd_(std::exchange(o.fd_, -1)), exclusive_(o.exclusive_) {}
FolderClaim& FolderClaim::operator=(FolderClaim&& o) noexcept {
  std::swap(fd_, o.fd_);
  std::swap(exclusive_, o.exclusive_);
  return *this;
}
FolderClaim::~FolderClaim() {
  if (fd_ < 0) return;
  const flight::In call("close", "a claimed folder");
  ::close(fd_);
}

}  // namespace ferry
