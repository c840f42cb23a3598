#include "opapi/workers.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "nnopbase/numbers.h"

namespace ascend_sim {
namespace {

/// One call of in_parallel: threads take parts from it until none is left.
struct Job {
  int64_t parts;
  const std::function<void(int64_t)>* part;
  bool cuts;         // what the caller's thread does when it rounds: helpers do the same
  int64_t next = 0;  // these two under the pool's mutex
  int64_t done = 0;
};

class Pool {
 public:
  Pool() {
    const int64_t helpers = static_cast<int64_t>(std::thread::hardware_concurrency()) - 1;
    for (int64_t i = 0; i < helpers; ++i) std::thread([this] { help(); }).detach();
  }

  void run(int64_t parts, const std::function<void(int64_t)>& part) {
    const auto job = std::make_shared<Job>(Job{parts, &part, cuts_on_this_thread()});
    std::unique_lock<std::mutex> lock(mutex_);
    jobs_.push_back(job);
    work_.notify_all();
    while (job->next < job->parts) take_one(*job, lock);
    done_.wait(lock, [&] { return job->done == job->parts; });
  }

 private:
  void take_one(Job& job, std::unique_lock<std::mutex>& lock) {
    const int64_t mine = job.next++;
    if (job.next == job.parts)
      jobs_.erase(std::find_if(
          jobs_.begin(), jobs_.end(), [&](const auto& other) { return other.get() == &job; }));
    lock.unlock();
    cuts_on_this_thread() = job.cuts;
    (*job.part)(mine);
    lock.lock();
    if (++job.done == job.parts) done_.notify_all();
  }

  [[noreturn]] void help() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      work_.wait(lock, [&] { return !jobs_.empty(); });
      const std::shared_ptr<Job> job = jobs_.front();
      take_one(*job, lock);
    }
  }

  std::mutex mutex_;
  std::condition_variable work_, done_;
  std::deque<std::shared_ptr<Job>> jobs_;
};

}  // namespace

void in_parallel(int64_t parts, const std::function<void(int64_t)>& part) {
  if (parts <= 0) return;
  if (parts == 1) {
    part(0);
    return;
  }
  // Never destroyed: the helpers outlive main, like the streams' threads.
  static Pool& pool = *std::make_unique<Pool>().release();
  pool.run(parts, part);
}

}  // namespace ascend_sim
