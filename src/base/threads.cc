#include "base/threads.h"

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/check.h"
#include "base/limits.h"

namespace ferry {
namespace {

#if defined(__x86_64__)
constexpr uint64_t kFlushBits = 0x8040;  // MXCSR: FTZ (bit 15) and DAZ (bit 6)
uint64_t read_control() { return _mm_getcsr(); }
void write_control(uint64_t v) { _mm_setcsr(static_cast<uint32_t>(v)); }
#elif defined(__aarch64__)
constexpr uint64_t kFlushBits = 1u << 24;  // FPCR.FZ: inputs and outputs
uint64_t read_control() {
  uint64_t v;
  asm volatile("mrs %0, fpcr" : "=r"(v));
  return v;
}
void write_control(uint64_t v) { asm volatile("msr fpcr, %0" ::"r"(v)); }
#else
#error "FlushDenormals: this processor is not supported"
#endif

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

constexpr int kSpins = 2000;  // about 50 us: longer than the gap between two kernels of a step

}  // namespace

FlushDenormals::FlushDenormals() : saved_(read_control()) { write_control(saved_ | kFlushBits); }
FlushDenormals::~FlushDenormals() { write_control(saved_); }

bool denormals_are_flushed() {
  // volatile: computed here and now, not by the compiler.
  volatile float least_normal = 0x1p-126f, subnormal = 0x1p-127f;
  const volatile float out = least_normal * 0.5f, in = subnormal * 2.0f;
  return out == 0 && in == 0;
}

struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> generation{0};
  // A worker that wakes late finds the run closed and stays out: nobody waits for it. Both are
  // sequentially consistent: either the worker sees the run closed, or the run sees it inside.
  std::atomic<bool> open{false};
  std::atomic<bool> busy{false};
  std::atomic<int> inside{0};
  std::atomic<int64_t> next{0};
  std::atomic<bool> stop{false};
  int64_t tasks = 0;
  void (*fn)(void*, int64_t, int) = nullptr;
  void* context = nullptr;
  std::mutex error_mutex;
  std::exception_ptr error;

  void work(int thread) {
    try {
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
        fn(context, i, thread);
    } catch (...) {
      next.store(tasks, std::memory_order_relaxed);
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  }

  void worker(int thread) {
    const FlushDenormals flush;
    uint64_t seen = 0;
    for (;;) {
      for (int i = 0; i < kSpins && generation.load(std::memory_order_acquire) == seen; ++i)
        pause();
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen; });
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_acquire)) return;
      inside.fetch_add(1);
      if (open.load()) work(thread);
      inside.fetch_sub(1, std::memory_order_release);
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  check(threads >= 0, "thread pool: {} threads", threads);
  if (threads == 0) threads = available_processors();
  for (int t = 1; t < threads; ++t) {
    try {
      state_->workers.emplace_back([s = state_.get(), t] { s->worker(t); });
    } catch (const std::system_error&) {
      break;  // work goes on with those there are: their number changes no result
    }
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->generation.fetch_add(1, std::memory_order_release);
  }
  state_->wake.notify_all();
  for (std::thread& w : state_->workers) w.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(int64_t tasks, void (*fn)(void*, int64_t, int), void* context) {
  if (tasks <= 0) return;
  State& s = *state_;
  check(!s.busy.exchange(true),
        "thread pool: parallel_for while another runs; tasks must not call it, and kernels run one "
        "after the other");
  struct NoLongerBusy {
    std::atomic<bool>& busy;
    ~NoLongerBusy() { busy.store(false); }
  } const at_the_end{s.busy};
  const FlushDenormals flush;
  if (s.workers.empty() || tasks == 1) {
    for (int64_t i = 0; i < tasks; ++i) fn(context, i, 0);
    return;
  }
  s.tasks = tasks;
  s.fn = fn;
  s.context = context;
  s.next.store(0, std::memory_order_relaxed);
  s.open.store(true);
  {
    const std::lock_guard lock(s.mutex);
    s.generation.fetch_add(1, std::memory_order_release);
  }
  s.wake.notify_all();
  s.work(0);
  s.open.store(false);
  for (int i = 0; s.inside.load() != 0; ++i) {
    if (i < kSpins)
      pause();
    else
      std::this_thread::yield();
  }
  if (s.error) std::rethrow_exception(std::exchange(s.error, nullptr));
}

bool start_thread(std::function<void()> work) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // a signal belongs to the thread that works
  bool started = true;
  try {
    std::thread([work = std::move(work)] {
      const FlushDenormals flush;
      work();
    }).detach();
  } catch (const std::system_error&) {
    started = false;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started;
}

}  // namespace ferry
