#include "base/file_time.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "base/fault.h"

namespace ferry {

Result<int64_t> written_unix_ms(const std::string& path) {
  struct stat status {};
  errno = fault_point("file.stat");
  if (errno != 0 || ::stat(path.c_str(), &status) != 0) {
    const bool none = errno == ENOENT || errno == ENOTDIR;
    return fail(none ? Code::kNotFound : Code::kUnavailable, "{}: {}", path, std::strerror(errno));
  }
  return int64_t{status.st_mtim.tv_sec} * 1000 + status.st_mtim.tv_nsec / 1'000'000;
}

}  // namespace ferry
