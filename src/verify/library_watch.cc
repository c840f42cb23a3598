#include "verify/library_watch.h"

#include <utility>

namespace ferry {

LibraryWatch::LibraryWatch(Device& device, std::function<void(const char*)> heard)
    : device_(device) {
  device_.stream().watch(std::move(heard));
}

LibraryWatch::~LibraryWatch() { device_.stream().watch({}); }

}  // namespace ferry
