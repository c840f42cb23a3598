#include "serve/page/page_files.h"

#include <algorithm>

namespace ferry::serve {

const PageFile* page_file(std::string_view path) {
  const std::span<const PageFile> files = page_files();
  const auto found =
      std::lower_bound(files.begin(), files.end(), path, [](const PageFile& f, std::string_view p) {
        return f.path < p;
      });
  return found != files.end() && found->path == path ? &*found : nullptr;
}

}  // namespace ferry::serve
