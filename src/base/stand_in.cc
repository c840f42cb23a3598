#include "base/stand_in.h"

#include <algorithm>
#include <cctype>

namespace ferry {

std::string stands_for(std::string_view head) {
  if (head.starts_with("version https://git-lfs.github.com/spec/"))
    return "is a pointer of Git LFS, not the file itself; run `git lfs pull` in its repository";
  const size_t first = head.find_first_not_of(" \t\r\n");
  std::string start(head.substr(std::min(first, head.size()), 14));
  std::transform(start.begin(), start.end(), start.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  if (start.starts_with("<!doctype html") || start.starts_with("<html"))
    return "is a web page, not the file itself; the download was answered by an error or a login "
           "page: fetch it again";
  return "";
}

}  // namespace ferry
