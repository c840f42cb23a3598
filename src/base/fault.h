// Fault points: named places where a test, or FERRY_FAULT in the environment, makes an operation
// fail, dawdle or hang, or the process die. FERRY_FAULT is a comma-separated list of NAME:N:ACTION:
// the N-th time (from 1; *: each time) that point NAME is passed, do ACTION, which is enospc, eio, emfile,
// erofs, eacces, efbig, enosys (the operation fails with that errno), delayMS (it takes so many
// milliseconds longer, or until nothing is armed any more), hang (it sleeps and never comes back), spin
// (the same, at work for ever), stop (SIGSTOP to this process), kill (SIGKILL to it), abort, or count (only
// counts). Where memory is shown to a point, flipN changes one bit of it: number N of all its bits, counted round.
// NAME@R: in rank R of a run alone. Example: FERRY_FAULT=file.rename:3:kill ferry train ...
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace ferry {

/// 0, or the errno with which the operation at this point must fail now. May not return (kill, hang).
/// Costs one relaxed load when no fault is armed.
int fault_point(const char* name);

/// The same where memory is shown: nothing fails there, but a bit of it may be another one afterwards.
void flip_point(const char* name, std::span<const std::span<std::byte>> memory);

/// Whether any is armed: what costs more than a point to find out need not be done otherwise.
bool faults_armed();

/// This process is that rank of a run, not 0 as before; -1: none of them.
void set_fault_rank(int rank);

/// Arms faults as FERRY_FAULT would; "" disarms all. For tests. Aborts on a malformed list.
void arm_faults(std::string_view list);

/// How often the point was passed since the last arm_faults (counts only while any fault is armed).
long fault_point_count(std::string_view name);

}  // namespace ferry
