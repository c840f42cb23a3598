// A pool of worker threads for CPU kernels. Every thread of Ferry runs with flush-to-zero and
// denormals-are-zero set, which is part of the numerics format: workers from their start, main()
// from its first line, and a thread of somebody else's program while it runs a kernel.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace ferry {

/// Sets FTZ and DAZ (flush-to-zero; FZ on Arm) on the calling thread until destroyed.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint64_t saved_;
};

/// Whether the calling thread flushes: by what arithmetic does, not by what a register says.
bool denormals_are_flushed();

/// Owner: a CPU device, or a test. One parallel_for at a time: a second one, from another thread or
/// from inside a task, is a bug in Ferry and says so (with one thread too), before anything runs.
class ThreadPool {
 public:
  /// threads >= 1 counts the caller; 0 means one per available processor (base/limits.h). Where the
  /// system gives no more threads (ulimit -u, -v, a cgroup's pids.max) the pool has fewer.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  /// Calls fn(context, task, thread) once for each task in [0, tasks), thread in [0, threads()).
  /// After an exception no further task begins; it is passed on when the running ones have ended.
  /// Which thread takes which task is not determined; tasks must write disjoint memory.
  void run(int64_t tasks, void (*fn)(void* context, int64_t task, int thread), void* context);

  /// f(int64_t task, int thread)
  template <typename F>
  void parallel_for(int64_t tasks, F&& f) {
    run(
        tasks,
        [](void* c, int64_t task, int thread) { (*static_cast<F*>(c))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Starts a thread of its own for waiting on the world: it is never joined, hears no signal, and
/// ends with the process. False where the system gives no more threads.
bool start_thread(std::function<void()> work);

}  // namespace ferry
