#include "serve/ordered_work.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <string>

namespace ferry::serve {
namespace {

TEST(OrderedWork, WhatIsSmallGoesFirstAndWhatIsLargeIsNotForgotten) {
  std::mutex mutex;
  std::condition_variable changed;
  std::string done;
  bool go = false;
  auto work = OrderedWork::start([](const std::exception_ptr&) { FAIL(); });
  ASSERT_TRUE(work);
  const auto post = [&](uint64_t bytes, char name) {
    (*work)->post(bytes, [&, name] {
      const std::lock_guard lock(mutex);
      done += name;
      changed.notify_all();
    });
  };
  (*work)->post(0, [&] {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return go; });
  });
  post(8 << 20, 'l');
  post(64 << 20, 'x');
  post(0, 'a');
  post(1 << 20, 'm');
  post(0, 'b');
  {
    const std::lock_guard lock(mutex);
    go = true;
    changed.notify_all();
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return done.size() == 5; });
  EXPECT_EQ(done, "abmlx");
}

/// Who waits long enough is passed by nobody any more.
TEST(OrderedWork, WhatComesLaterThanSomethingIsDueWaitsForIt) {
  std::mutex mutex;
  std::condition_variable changed;
  std::string done;
  bool began = false, go = false;
  auto work = OrderedWork::start([](const std::exception_ptr&) { FAIL(); });
  ASSERT_TRUE(work);
  (*work)->post(0, [&] {
    std::unique_lock lock(mutex);
    began = true;
    changed.notify_all();
    changed.wait(lock, [&] { return go; });
  });
  const auto post = [&](uint64_t bytes, char name) {
    (*work)->post(bytes, [&, name] {
      const std::lock_guard lock(mutex);
      done += name;
      changed.notify_all();
    });
  };
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return began; });
  post(32 << 10, 'l');  // due 31 ms later
  changed.wait_for(lock, std::chrono::milliseconds(100), [] { return false; });
  post(0, 's');
  go = true;
  changed.notify_all();
  changed.wait(lock, [&] { return done.size() == 2; });
  EXPECT_EQ(done, "ls");
}

}  // namespace
}  // namespace ferry::serve
