#include "base/os_error.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <cstring>

namespace ferry {
namespace {

Code code_of(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR: return Code::kNotFound;
    case EISDIR: return Code::kInvalidInput;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case EROFS:
    case EACCES:
    case EPERM: return Code::kExhausted;  // a second try would meet the same
    case ENAMETOOLONG:
    case ELOOP: return Code::kInvalidInput;
    default: return Code::kUnavailable;
  }
}

/// What else than a file's path was given, where no such file is there.
const char* no_path(const std::string& path) {
  if (path.find("://") != path.npos) return "; Ferry fetches nothing: fetch it, and name the file";
  if (path.find_first_of("*?[") != path.npos)
    return "; patterns are for the shell to expand, and it does where they stand without quotes "
           "and files match";
  return "";
}

/// How many files this process may have open, and what it says to a shell to have more.
std::string files_open() {
  rlimit limit{};
  const std::string most = ::getrlimit(RLIMIT_NOFILE, &limit) == 0
                               ? fmt::format("more than {} files", limit.rlim_cur)
                               : "more files";
  return "; this process may not have " + most +
         " open (ulimit -n): raise the limit, as with `ulimit -n 1024`, and start it again";
}

std::string advice(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR: return no_path(path);
    case ENOSPC:
    case EDQUOT:
      return fmt::format("; {} on this file system, or choose another folder", kFreeSpace);
    case EFBIG:
      return "; it would be larger than this process may write (ulimit -f) or the file system "
             "takes: raise the limit, or choose another folder";
    case EMFILE: return files_open();
    case ENFILE:
      return "; the machine has no more files to give (fs.file-max): end what holds many";
    case EISDIR: return "; name a file";
    case EROFS: return "; the file system is read-only: choose another folder";
    case EACCES:
    case EPERM: return "; change its permissions, or choose another folder";
    default: return "";
  }
}

}  // namespace

tl::unexpected<Status> os_error(const char* doing, const std::string& path, int error) {
  return fail(code_of(error),
              "{}: cannot {}: {}{}",
              path,
              doing,
              std::strerror(error),
              advice(path, error));
}

tl::unexpected<Status> os_error(const std::string& what, int error) {
  return fail(code_of(error), "{}: {}{}", what, std::strerror(error), advice("", error));
}

tl::unexpected<Status> open_error(const std::string& path, int error) {
  struct stat st {};  // devices without a driver have this error, too
  if (error == ENXIO && ::stat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode))
    return fail(Code::kInvalidInput, "{}: {}; name a file", path, kind_of_file(st.st_mode));
  return os_error("open", path, error);
}

bool is_no_room(const Status& why) {
  return why.code == Code::kExhausted && why.message.find(kFreeSpace) != std::string::npos;
}

const char* kind_of_file(unsigned mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR: return "is a folder";
    case S_IFIFO: return "is a pipe";
    case S_IFSOCK: return "is a socket";
    case S_IFCHR:
    case S_IFBLK: return "is a device";
    default: return "is not a regular file";
  }
}

}  // namespace ferry
