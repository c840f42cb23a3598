#include "verify/library_watch.h"

namespace ferry {

LibraryWatch::LibraryWatch(Device& device, std::function<void(const char*)> heard)
    : device_(device) {
  device_.watch_library(std::move(heard));
}

LibraryWatch::~LibraryWatch() { device_.watch_library({}); }

}  // namespace ferry
