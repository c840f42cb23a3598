#include "base/check.h"

namespace ferry {

void throw_bug(std::string message) { throw Bug(std::move(message)); }

}  // namespace ferry
