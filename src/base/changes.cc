#include "base/changes.h"

#include <chrono>

namespace ferry {

bool Changes::wait(Lock& lock, const std::function<bool()>& until, double seconds_max) {
  return changed_.wait_for(lock, std::chrono::duration<double>(seconds_max), until);
}

}  // namespace ferry
