#include "base/alive.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/check.h"
#include "base/flight_record.h"
#include "base/threads.h"

namespace ferry {
namespace {

std::atomic<const std::function<void(uint64_t)>*> g_heard{nullptr};

}  // namespace

void still_alive(uint64_t bytes) {
  flight::moved();
  if (const auto* heard = g_heard.load(std::memory_order_relaxed)) (*heard)(bytes);
}

AliveListener::AliveListener(std::function<void(uint64_t)> heard) : heard_(std::move(heard)) {
  const std::function<void(uint64_t)>* none = nullptr;
  check(g_heard.compare_exchange_strong(none, &heard_), "alive: somebody listens already");
}

AliveListener::~AliveListener() { g_heard.store(nullptr); }

struct WaitingForPeople::State {
  std::mutex mutex;
  std::condition_variable over;
  bool ended = false;
  std::function<void()> say;
};

WaitingForPeople::WaitingForPeople(std::function<void()> say) : state_(std::make_shared<State>()) {
  state_->say = std::move(say);
  // Without a thread nobody says it: then a reader has as long as the work's patience.
  static_cast<void>(start_thread([state = state_] {
    std::unique_lock lock(state->mutex);
    while (!state->over.wait_for(lock, std::chrono::seconds(1), [&] { return state->ended; }))
      state->say();
  }));
}

WaitingForPeople::~WaitingForPeople() {
  const std::lock_guard lock(state_->mutex);
  state_->ended = true;
  state_->over.notify_one();
}

}  // namespace ferry
