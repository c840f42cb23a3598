#include "base/descriptors.h"

#include <fcntl.h>
#include <unistd.h>

namespace ferry {

bool hold_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd)
    // The lowest number that is free is the one that open gives. Children inherit it.
    if (::fcntl(fd, F_GETFD) < 0 &&
        ::open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_RDWR) != fd)
      return false;
  return true;
}

bool output_is_closed() {
  const int flags = ::fcntl(STDOUT_FILENO, F_GETFL);
  return flags < 0 || (flags & O_ACCMODE) == O_RDONLY;
}

}  // namespace ferry
