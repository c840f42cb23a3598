// Fault points: named places where a test, or FERRY_FAULT in the environment, makes an operation
// fail, dawdle or hang, or the process die. FERRY_FAULT is a comma-separated list of NAME:N:ACTION:
// the N-th time (from 1; *: each time) that point NAME is passed, do ACTION, which is enospc, eio,
// erofs, eacces, efbig, enosys (the operation fails with that errno), delayMS (it takes so many
// milliseconds longer), hang (it never comes back), kill (SIGKILL to this process), abort, or count
// (only counts). Example: FERRY_FAULT=file.rename:3:kill ferry train ...
#pragma once

#include <string>
#include <string_view>

namespace ferry {

/// 0, or the errno with which the operation at this point must fail now. May not return (kill, hang).
/// Costs one relaxed load when no fault is armed.
int fault_point(const char* name);

/// Arms faults as FERRY_FAULT would; "" disarms all. For tests. Aborts on a malformed list.
void arm_faults(std::string_view list);

/// How often the point was passed since the last arm_faults (counts only while any fault is armed).
long fault_point_count(std::string_view name);

}  // namespace ferry
