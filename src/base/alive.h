// Signs of life. Work that may take long with nothing to show for it (files that are read, hashed or
// written, weights that are drawn) says after each block that it goes on, to whoever listens: a
// training worker, whose supervisor takes silence for a hang.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace ferry {

/// The work goes on; `bytes` of a file are done with since the last call. From any thread. Costs one
/// relaxed load when nobody listens.
void still_alive(uint64_t bytes = 0);

/// Hears every still_alive() of the process until destroyed, on the thread that says it.
/// check: there is one at a time. Outlives the work that it listens to.
class AliveListener {
 public:
  explicit AliveListener(std::function<void(uint64_t bytes)> heard);
  ~AliveListener();
  AliveListener(const AliveListener&) = delete;
  AliveListener& operator=(const AliveListener&) = delete;

 private:
  std::function<void(uint64_t)> heard_;
};

/// Says every second, from a thread of its own, that somebody is being waited for who may take any
/// time: a reader of the output. Never around work, whose silence is what a hang is told by.
class WaitingForPeople {
 public:
  explicit WaitingForPeople(std::function<void()> say);
  ~WaitingForPeople();  // say() is not called after it
  WaitingForPeople(const WaitingForPeople&) = delete;
  WaitingForPeople& operator=(const WaitingForPeople&) = delete;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace ferry
