// What the errors of the system's calls mean for whoever gave the path: which kind of failure it is,
// and what to do about it. For the files that make such calls.
#pragma once

#include <cerrno>
#include <string>

#include "base/fault.h"
#include "base/result.h"

namespace ferry {

/// "PATH: cannot DOING: why; what to do". kExhausted is what a second try would meet again.
tl::unexpected<Status> os_error(const char* doing, const std::string& path, int error);

/// The same of what has no path: "WHAT: why; what to do".
tl::unexpected<Status> os_error(const std::string& what, int error);

/// The same of a file that could not be opened to be read, where a socket is called by its name. Errors: and
/// kInvalidInput for that.
tl::unexpected<Status> open_error(const std::string& path, int error);

/// What is advised where a disk, or what somebody may have of it, is full; by it is_no_room() knows the failure again.
constexpr const char* kFreeSpace = "free space";
/// Whether it is one that passes when somebody frees space.
bool is_no_room(const Status& why);

/// errno after a system call that may be made to fail at a fault point; 0 if it did not fail.
template <typename Call>
int error_of(const char* point, Call&& call) {
  if (const int injected = fault_point(point)) return injected;
  return call() ? 0 : errno;
}

/// "is a folder", "is a pipe": what st_mode says of something that is no regular file.
const char* kind_of_file(unsigned mode);

}  // namespace ferry
