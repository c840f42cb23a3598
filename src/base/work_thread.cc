#include "base/work_thread.h"

#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "base/threads.h"

namespace ferry {

struct WorkThread::State {
  std::function<bool()> between;
  std::function<void(std::exception_ptr)> failed;

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::function<void()>> tasks;
  bool stop = false;   // no further task begins
  bool ended = false;  // the thread touches nothing any more

  /// False: it is over.
  bool take(bool wait, std::vector<std::function<void()>>& taken) {
    std::unique_lock lock(mutex);
    if (wait) changed.wait(lock, [&] { return stop || !tasks.empty(); });
    taken = std::exchange(tasks, {});
    return !stop;
  }

  bool over() {
    const std::lock_guard lock(mutex);
    return stop;
  }

  void work() {
    std::vector<std::function<void()>> taken;
    for (bool busy = false; take(!busy, taken);) {
      for (std::function<void()>& task : taken) {
        if (over()) return;
        task();
        task = nullptr;  // what it held is let go before the next
      }
      busy = between && between();
    }
  }

  void run() {
    try {
      work();
    } catch (...) {
      {
        const std::lock_guard lock(mutex);
        stop = true;
      }
      failed(std::current_exception());
    }
    std::vector<std::function<void()>> dropped;
    {
      const std::lock_guard lock(mutex);
      dropped = std::exchange(tasks, {});
    }
    dropped.clear();
    const std::lock_guard lock(mutex);
    ended = true;
    changed.notify_all();
  }
};

WorkThread::WorkThread(std::shared_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<WorkThread>> WorkThread::start(
    std::function<bool()> between, std::function<void(std::exception_ptr)> failed) {
  auto state = std::make_shared<State>();
  state->between = std::move(between);
  state->failed = std::move(failed);
  if (!start_thread([state] { state->run(); }))
    return fail(Code::kExhausted, "the system gives no further thread (ulimit -u, pids.max)");
  return std::unique_ptr<WorkThread>(new WorkThread(std::move(state)));
}

WorkThread::~WorkThread() {
  std::unique_lock lock(state_->mutex);
  state_->stop = true;
  state_->changed.notify_all();
  state_->changed.wait(lock, [&] { return state_->ended; });
}

void WorkThread::post(std::function<void()> task) {
  const std::lock_guard lock(state_->mutex);
  if (state_->stop) return;
  state_->tasks.push_back(std::move(task));
  state_->changed.notify_all();
}

}  // namespace ferry
