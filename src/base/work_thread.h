// A thread that does what it is handed, one task after the other, and what it does by itself between.
#pragma once

#include <exception>
#include <functional>
#include <memory>

#include "base/result.h"

namespace ferry {

/// Owner: whoever hands it work. post() from any thread.
class WorkThread {
 public:
  /// `between`, if there is one, is called after each round of tasks; while it returns true the thread
  /// does not wait for tasks. What a task or `between` throws ends the work: `failed` is called with
  /// it, on the thread, and later tasks are dropped. Errors: kExhausted: the system gives no thread.
  static Result<std::unique_ptr<WorkThread>> start(std::function<bool()> between,
                                                   std::function<void(std::exception_ptr)> failed);
  /// Waits for the task that runs; those that have not begun are dropped.
  ~WorkThread();
  WorkThread(const WorkThread&) = delete;
  WorkThread& operator=(const WorkThread&) = delete;

  void post(std::function<void()> task);

 private:
  struct State;
  explicit WorkThread(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace ferry
