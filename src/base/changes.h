// Waiting for what a mutex guards to change, for threads that wait on the world (base/threads.h starts them).
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>

namespace ferry {

/// Any thread, each with the lock.
class Changes {
 public:
  using Lock = std::unique_lock<std::mutex>;
  Lock lock() { return Lock(mutex_); }
  /// Something has: all who wait look.
  void tell() { changed_.notify_all(); }
  /// `until` is asked with the lock; the lock is free while nothing changes.
  void wait(Lock& lock, const std::function<bool()>& until) { changed_.wait(lock, until); }
  /// At most so long. False: it is not so yet.
  bool wait(Lock& lock, const std::function<bool()>& until, double seconds_max);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace ferry
