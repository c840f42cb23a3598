#include "base/alive.h"

#include <atomic>

#include "base/check.h"

namespace ferry {
namespace {

std::atomic<const std::function<void(uint64_t)>*> g_heard{nullptr};

}  // namespace

void still_alive(uint64_t bytes) {
  if (const auto* heard = g_heard.load(std::memory_order_relaxed)) (*heard)(bytes);
}

AliveListener::AliveListener(std::function<void(uint64_t)> heard) : heard_(std::move(heard)) {
  const std::function<void(uint64_t)>* none = nullptr;
  check(g_heard.compare_exchange_strong(none, &heard_), "alive: somebody listens already");
}

AliveListener::~AliveListener() { g_heard.store(nullptr); }

}  // namespace ferry
