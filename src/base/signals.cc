#include "base/signals.h"

namespace ferry {

std::vector<int> stop_signals_to_heed() {
  std::vector<int> heeded;
  for (const int s : kStopSignals) {
    struct sigaction action {};
    if (::sigaction(s, nullptr, &action) != 0 || action.sa_handler != SIG_IGN) heeded.push_back(s);
  }
  return heeded;
}

}  // namespace ferry
