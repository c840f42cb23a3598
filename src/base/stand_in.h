// Files that are not what they are named after but stand for it: pointers of Git LFS, web pages that
// a download saved.
#pragma once

#include <string>
#include <string_view>

namespace ferry {

/// What a file that begins with `head` (64 bytes and more of it, if there are so many) stands for
/// and what to do about it, as the end of a message about its path; empty if it is none of these.
std::string stands_for(std::string_view head);

}  // namespace ferry
