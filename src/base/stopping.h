// How a process answers signals that ask it to end (base/signals.h): the first one is kept for whoever looks, a later
// one ends the process.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace ferry {

/// From now on the first of the signals that are to be heeded is kept for stop_signal(). One that comes later ends the
/// process as if nobody answered it, unless it is the first one's echo: whoever stops a group may reach one of its
/// processes twice.
void answer_stop_signals();
/// The one that has come; 0: none.
int stop_signal();

/// For commands that keep what they have and end early: answer_stop_signals(), and a failure behind it ends the process
/// as by the signal (end_as_by_stop_signal()), whatever it says.
void stop_by_signals();

/// For commands that write much and have nothing to save: answer_stop_signals(), and once one has come reading and
/// writing files (base/file.h) fails, so that whoever writes takes back what is half-written, as after any failure.
void stop_files_by_signals();
/// Errors: kUnavailable: such a signal has come.
Result<void> files_not_stopped();
/// What was to be written is whole: from now on such a signal ends the process as if nobody answered it. One that has
/// come is still stop_signal()'s.
void answer_stop_signals_no_more();
/// Where that was what made the command fail: the process ends as by the signal, for whoever started it (a loop in a
/// shell) to see. Else it does nothing.
void end_as_by_stop_signal();

/// Those that a child is not to hear whose parent answers them: a keyboard and a scheduler reach the whole group, and
/// the parent tells the child by SIGTERM. A limit of CPU time warns each process of its own.
std::vector<int> stop_signals_of_parents();

/// "SIGTERM".
std::string signal_name(int signal);

}  // namespace ferry
