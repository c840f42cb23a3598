// A thread for work of which some takes long: what is soon done goes first, and what takes long is passed over
// only for a while.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "base/work_thread.h"

namespace ferry::serve {

/// Owner: whoever hands it work. post() from any thread.
class OrderedWork {
 public:
  /// As WorkThread::start().
  static Result<std::unique_ptr<OrderedWork>> start(std::function<void(std::exception_ptr)> failed);

  /// `bytes`: how large a thing the task works on. One task waits for another that comes later only if
  /// it comes before so many more bytes could have been worked on, at kBytesPerS.
  void post(uint64_t bytes, std::function<void()> task);

  static constexpr double kBytesPerS = 1 << 20;

 private:
  OrderedWork() = default;
  void do_first();

  std::mutex mutex_;
  std::multimap<double, std::function<void()>> tasks_;  // by when each is due
  std::unique_ptr<WorkThread> thread_;                  // the last: it ends before what it uses
};

}  // namespace ferry::serve
