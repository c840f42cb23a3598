// Signals that ask a process to end, which it answers by ending in order: what is under way is finished
// or saved first.
#pragma once

#include <csignal>
#include <vector>

namespace ferry {

/// A keyboard, a terminal that closes, whoever manages services, and schedulers before they kill.
inline constexpr int kStopSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU};

/// Those of kStopSignals that are to be heeded: what the caller ignores (nohup, a shell's `&` in a script)
/// stays ignored.
std::vector<int> stop_signals_to_heed();

}  // namespace ferry
