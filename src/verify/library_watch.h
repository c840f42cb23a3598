// Which calls of the vendor's library a device makes, for those who look for the one at fault.
#pragma once

#include <functional>

#include "device/device.h"

namespace ferry {

/// While it lives, `heard` is told of every call of the vendor's library by name ("aclnnRmsNorm").
/// Only Ascend tells; one watch at a time on a device.
class LibraryWatch {
 public:
  LibraryWatch(Device& device, std::function<void(const char* call)> heard);
  ~LibraryWatch();
  LibraryWatch(const LibraryWatch&) = delete;
  LibraryWatch& operator=(const LibraryWatch&) = delete;

 private:
  Device& device_;
};

}  // namespace ferry
