// The program's version: read by CMakeLists.txt, too.
#pragma once

namespace ferry {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace ferry
