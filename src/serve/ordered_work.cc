#include "serve/ordered_work.h"

#include "base/clock.h"

namespace ferry::serve {

Result<std::unique_ptr<OrderedWork>> OrderedWork::start(
    std::function<void(std::exception_ptr)> failed) {
  auto work = std::unique_ptr<OrderedWork>(new OrderedWork());
  TRY_ASSIGN(work->thread_, WorkThread::start(nullptr, std::move(failed)));
  return work;
}

void OrderedWork::post(uint64_t bytes, std::function<void()> task) {
  const double due_s = system_clock().monotonic_s() + static_cast<double>(bytes) / kBytesPerS;
  {
    const std::lock_guard lock(mutex_);
    tasks_.emplace(due_s, std::move(task));
  }
  thread_->post([this] { do_first(); });
}

/// Called once for each task.
void OrderedWork::do_first() {
  std::function<void()> task;
  {
    const std::lock_guard lock(mutex_);
    task = std::move(tasks_.begin()->second);
    tasks_.erase(tasks_.begin());
  }
  task();
}

}  // namespace ferry::serve
